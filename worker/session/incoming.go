package session

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"time"

	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/transfer"
	"drover/worker/tree"
)

// incoming puts a page stream's content together: CRIU's images in the shell's directory, the tree's files where they belong.
type incoming struct {
	ctx       context.Context
	shell     tree.Shell
	migration migration.ID
	epoch     migration.Epoch
	rss       int64
	room      transfer.Room
	fill      *memory   // takes what need not be in the images; nil puts all into them
	spaces    uint32    // opened so far
	begun     time.Time // when the first was: the final pass had begun, the tree did not run
	hurry     func()    // is called then
	last      rest
}

var _ transfer.Target = (*incoming)(nil)

// Limits bound what the source may send by what its tree had when the doctor looked, and room to grow.
func (in *incoming) Limits() transfer.Limits {
	pages := uint64(max(in.rss, 0)) / image.PageSize
	return transfer.Limits{
		Migration: in.migration, Epoch: in.epoch,
		Slots: uint32(min(2*pages+1<<18, 1<<31)), Pages: 4*pages + 1<<20, Room: in.room,
	}
}

// Open makes the images of a space.
func (in *incoming) Open(s transfer.Space) (transfer.PageWriter, error) {
	if in.spaces++; in.spaces == 1 {
		in.begun = time.Now()
		in.hurry()
	}
	sp := image.Space{Kind: image.SpaceKind(s.Kind), ID: s.ID}
	if sp.Kind != image.Process && sp.Kind != image.Shmem {
		return nil, errs.New(errs.Invalid, "pages came for a space of unknown kind %d", s.Kind)
	}
	w, err := image.NewPagemapWriter(in.shell.Images(), sp, in.spaces)
	if err != nil {
		return nil, errs.New(errs.Failed, "write the image of %s: %w", sp, err)
	}
	return pageWriter{w, sp, in.fill}, nil
}

// pageWriter is a space's images being written.
type pageWriter struct {
	*image.PagemapWriter
	space image.Space
	fill  *memory
}

// Entry takes pages that may be filled in after the restore out of the images, if that is how this tree is restored.
func (w pageWriter) Entry(addr uint64, flags uint32, content []transfer.Content) error {
	if w.fill != nil && w.space.Kind == image.Process && flags&image.PELazy != 0 {
		n := uint64(0)
		for _, c := range content {
			w.fill.add(w.space.ID, addr+n*image.PageSize, c)
			n += uint64(c.Pages())
		}
		return w.Hole(addr, image.PELazy, n)
	}
	for _, c := range content {
		data, err := c.Bytes()
		if err != nil {
			return err
		}
		if err := w.Run(addr, flags&^image.PELazy, data); err != nil {
			return err
		}
		addr += uint64(len(data))
	}
	return nil
}

// File begins an image, a file of the tree or the source's last word.
func (in *incoming) File(kind string, meta []byte) (io.WriteCloser, error) {
	switch kind {
	case kindImage:
		return in.imageFile(string(meta))
	case kindCarried:
		var f tree.CarriedFile
		if err := json.Unmarshal(meta, &f); err != nil {
			return nil, errs.New(errs.Invalid, "a carried file's description does not parse: %w", err)
		}
		return receiving(func(r io.Reader) error { return in.shell.Receive(in.ctx, f, r) }), nil
	case kindRest:
		if err := json.Unmarshal(meta, &in.last); err != nil {
			return nil, errs.New(errs.Invalid, "the source's last word does not parse: %w", err)
		}
		return discard{}, nil
	}
	return nil, errs.New(errs.Invalid, "a file of unknown kind %q came", kind).WithNext("run the same release of drover on both hosts")
}

// imageFile makes an image. Its name has no directory, and is none of those that are written here.
func (in *incoming) imageFile(name string) (io.WriteCloser, error) {
	if name == "" || len(name) > 128 || filepath.Base(name) != name || filepath.Ext(name) != ".img" || name[0] == '.' {
		return nil, errs.New(errs.Invalid, "an image of the name %q came", name)
	}
	f, err := os.OpenFile(filepath.Join(in.shell.Images(), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, errs.New(errs.Failed, "write image: %w", err)
	}
	return f, nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// piped is a file whose content is written here and read by f.
type piped struct {
	*io.PipeWriter
	done chan error
}

func receiving(f func(io.Reader) error) io.WriteCloser {
	r, w := io.Pipe()
	p := piped{w, make(chan error, 1)}
	go func() {
		err := f(r)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // f may know that it has enough
		}
		r.CloseWithError(err)
		p.done <- err
	}()
	return p
}

// Close returns when f has.
func (p piped) Close() error {
	p.PipeWriter.Close()
	return <-p.done
}
