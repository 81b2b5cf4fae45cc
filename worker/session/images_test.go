package session

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// A CRIU whose worker was killed in mid-dump still writes images when the next worker removes them.
func TestImagesThatAreStillWrittenAreRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "images")
	if err := os.MkdirAll(filepath.Join(dir, "dump"), 0o700); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error)
	begun := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			if i == 100 {
				close(begun)
			}
			if err := os.WriteFile(filepath.Join(dir, "dump", strconv.Itoa(i)), nil, 0o600); err != nil {
				gone <- err
				return
			}
		}
	}()
	<-begun
	if err := removeImages(dir); err != nil {
		t.Error(err)
	}
	if err := <-gone; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the writer ended by %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	if err := removeImages(dir); err != nil {
		t.Errorf("again: %v", err)
	}
}
