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
	dataFile     = "results.json"
	emulatedFile = "results-vm.json"
	pageFile     = "README.md"
)

// Write makes the folder hold the data and everything made of it; pictures of an earlier report that this data is not enough for
// are removed.
func Write(dir string, r Report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the report's folder: %w", err)
	}
	files := Render(r)
	for name, d := range map[string]*Data{dataFile: &r.Data, emulatedFile: r.Emulated} {
		if d == nil {
			continue
		}
		raw, err := json.MarshalIndent(d, "", " ")
		if err != nil {
			return fmt.Errorf("encode the report's data: %w", err)
		}
		files[name] = string(raw) + "\n"
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
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}

// Read is the report that Write wrote; where there is none, an empty one.
func Read(dir string) (r Report, err error) {
	d, err := readData(filepath.Join(dir, dataFile))
	if err != nil {
		return r, err
	}
	if d != nil {
		r.Data = *d
	}
	r.Emulated, err = readData(filepath.Join(dir, emulatedFile))
	return r, err
}

// readData is nil if there is no such file.
func readData(file string) (*Data, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the report's data: %w", err)
	}
	d := new(Data)
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, fmt.Errorf("read the report's data in %s: %w", file, err)
	}
	return d, nil
}

// Render makes the page and its pictures, by the names of their files.
func Render(r Report) map[string]string {
	files := map[string]string{pageFile: page(r)}
	drawn := pictures(r.Data)
	if r.Emulated != nil {
		drawn = append(drawn, emulatedPictures(*r.Emulated)...)
	}
	for _, p := range drawn {
		files[p.file] = p.svg()
	}
	return files
}

// Duration is the time as the standard library has it.
func (m Millis) Duration() time.Duration {
	return time.Duration(float64(m) * float64(time.Millisecond))
}
