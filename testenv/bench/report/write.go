package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Names of files in a report's folder.
const (
	dataFile = "results.json"
	pageFile = "README.md"
)

// Write makes the folder hold the data and everything made of it; pictures of an earlier report that this data is not enough for
// are removed.
func Write(dir string, d Data) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the report's folder: %w", err)
	}
	raw, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return fmt.Errorf("encode the report's data: %w", err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an old picture: %w", err)
		}
	}
	files := Render(d)
	files[dataFile] = string(raw) + "\n"
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}

// Read is the data of a report that Write wrote.
func Read(dir string) (Data, error) {
	raw, err := os.ReadFile(filepath.Join(dir, dataFile))
	if err != nil {
		return Data{}, fmt.Errorf("read the report's data: %w", err)
	}
	var d Data
	if err := json.Unmarshal(raw, &d); err != nil {
		return Data{}, fmt.Errorf("read the report's data in %s: %w", dir, err)
	}
	return d, nil
}

// Render makes the page and its pictures, by the names of their files.
func Render(d Data) map[string]string {
	files := map[string]string{pageFile: page(d)}
	for _, p := range pictures(d) {
		files[p.file] = p.svg()
	}
	return files
}

// Duration is the time as the standard library has it.
func (m Millis) Duration() time.Duration {
	return time.Duration(float64(m) * float64(time.Millisecond))
}
