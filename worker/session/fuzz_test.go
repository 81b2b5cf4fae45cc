package session

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"drover/worker/tree"
)

// place is a shell as far as files come into it.
type place struct {
	tree.Shell
	images string
}

func (p place) Images() string { return p.images }
func (place) Receive(_ context.Context, _ tree.CarriedFile, data io.Reader) error {
	_, err := io.Copy(io.Discard, data)
	return err
}

// FuzzFile: whatever a source calls a file, nothing is made outside the images' directory, and nothing in it is written over.
func FuzzFile(f *testing.F) {
	f.Add("image", []byte("core-1.img"), []byte("x"))
	f.Add("image", []byte("../core-1.img"), []byte("x"))
	f.Add("image", []byte("mine.img"), []byte("x"))
	f.Add("carried", []byte(`{"volume":0,"path":"a","size":1}`), []byte("x"))
	f.Add("rest", []byte(`{"frozen_for_ns":1}`), []byte(""))
	top := f.TempDir()
	images := filepath.Join(top, "images")
	mine := filepath.Join(images, "mine.img")
	f.Fuzz(func(t *testing.T, kind string, meta, data []byte) {
		if err := os.MkdirAll(images, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(images)
		if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		in := &incoming{ctx: t.Context(), shell: place{images: images}}
		if w, err := in.File(kind, meta); err == nil {
			_, _ = w.Write(data)
			_ = w.Close()
		}
		got, err := os.ReadFile(mine)
		if err != nil || string(got) != "mine" {
			t.Errorf("what was there is %q now, %v", got, err)
		}
		here, err := os.ReadDir(top)
		if err != nil || len(here) != 1 {
			t.Errorf("outside there is %v now, %v", here, err)
		}
	})
}
