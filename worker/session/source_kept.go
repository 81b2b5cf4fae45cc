package session

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"time"

	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/transfer"
	"drover/worker/session/rules"
	"drover/worker/tree"
)

// aside is a source's memory being put aside, for when the tree comes back, while it is held through probation.
type aside struct {
	host *Registry
	kept *kept
	over chan struct{} // closed when nobody reads the tree any more
}

// putAside begins to put aside what the tree has, from the images and the held tree itself. It takes no time that anybody waits for: what has
// not been read when probation ends is not kept. It takes of the processors what copying may, but no lower priority of its own: its thread
// could hold up all others then (whoever waits for a lock that it has, or for Go's to stop the world).
func (s *source) putAside() {
	if s.aside != nil || s.final != migration.Dead || s.host.cfg.Stores.Keep <= 0 {
		return
	}
	ctx, stop := context.WithCancel(s.host.ctx)
	a := &aside{s.host, &kept{workload: s.req.Spec.Name, epoch: rules.Brings(migration.Commit, s.req.Epoch), stop: stop}, make(chan struct{})}
	s.aside = a
	s.host.shelve(a.kept)
	s.host.asides.Go(func() {
		defer close(a.over)
		defer stop()
		defer s.host.cfg.Nice.Copy()()
		begun := time.Now()
		pages, err := a.read(ctx, filepath.Join(s.dir, "dump"), s.lent)
		s.log.Info("pages are put aside", "pages", pages.Pages(), "took", time.Since(begun), "error", err)
		s.host.putAside(a.kept, pages)
	})
}

// end returns when the tree is not read any more. What has been put aside of it by then is kept.
func (a *aside) end() {
	if a == nil {
		return
	}
	a.kept.stop()
	<-a.over
}

// putAside is told what has been put aside; it may have been dropped meanwhile.
func (r *Registry) putAside(k *kept, pages *transfer.Kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.kept[k.workload] == k
	switch {
	case pages != nil && current:
		k.pages, k.bytes, k.until = pages, int64(pages.Pages())*image.PageSize, time.Now().Add(r.cfg.Stores.Keep)
	case current:
		delete(r.kept, k.workload)
	case pages != nil:
		r.letGo(&kept{workload: k.workload, pages: pages, stop: func() {}})
	}
}

// grow makes room for more of what is being put aside.
func (a *aside) grow(bytes int64) error {
	if err := a.host.mayKeep(a.kept, bytes, bytes-a.kept.bytes); err != nil {
		return err
	}
	a.host.mu.Lock()
	defer a.host.mu.Unlock()
	a.kept.bytes = bytes
	return nil
}

// read puts aside all pages of the images in dir and those that they leave out, until there is no room for more or ctx is done. An error
// says why they are not all.
func (a *aside) read(ctx context.Context, dir string, lent tree.Lent) (*transfer.Kept, error) {
	spaces, err := image.Spaces(dir)
	if err != nil {
		return nil, errs.New(errs.Failed, "read images: %w", err)
	}
	of := make(map[image.Space]pagemap, len(spaces))
	all := uint64(0)
	for _, sp := range spaces {
		id, entries, err := image.ReadPagemap(dir, sp)
		if err != nil {
			return nil, err
		}
		of[sp] = pagemap{entries, image.PagesName(id)}
		for _, e := range entries {
			all += e.Pages
		}
	}
	if all == 0 { // it went through CRIU, and nobody else has it
		return nil, nil
	}
	memory, err := lent.Memory()
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "open the tree's memory: %w", err)
	}
	defer memory.Close()
	k, err := transfer.NewKeeping(uint32(min(all, transfer.MostKept)), transfer.Room{More: func(slots uint32) error { return a.grow(int64(slots) * image.PageSize) }})
	if err != nil {
		return nil, err
	}
	for _, sp := range spaces {
		left := func(addr uint64, buf []byte) error { return memory.Read(sp.ID, addr, buf) }
		if err = of[sp].each(ctx, dir, left, func(run []byte) error {
			if _, err := a.host.cfg.CPU.Wait(ctx); err != nil {
				return err
			}
			return k.Add(run)
		}); err != nil {
			break
		}
	}
	pages, end := k.Close()
	if err == nil {
		err = end
	}
	return pages, err
}

// pagemap is what the images say of a space.
type pagemap struct {
	entries []image.Entry
	written string // the file with the pages that the images have
}

// each hands over all pages, in runs: those in the images from there, those left out of them as left has them.
func (p pagemap) each(ctx context.Context, dir string, left func(addr uint64, buf []byte) error, f func([]byte) error) error {
	written, err := os.Open(filepath.Join(dir, p.written))
	if err != nil {
		return errs.New(errs.Failed, "read pages: %w", err)
	}
	defer written.Close()
	buf := make([]byte, transfer.MaxRun*image.PageSize)
	for _, e := range p.entries {
		read := left
		if e.Flags&image.PEPresent != 0 {
			read = func(_ uint64, buf []byte) error {
				_, err := io.ReadFull(written, buf)
				return err
			}
		}
		for addr := e.Addr; addr < e.End(); {
			if err := ctx.Err(); err != nil {
				return err
			}
			run := buf[:min(e.End()-addr, uint64(len(buf)))]
			if err := read(addr, run); err != nil {
				return err
			}
			if err := f(run); err != nil {
				return err
			}
			addr += uint64(len(run))
		}
	}
	return nil
}
