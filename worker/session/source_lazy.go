package session

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"time"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/track"
	"drover/internal/errs"
	"drover/transfer"
)

// lazy says whether the final dump leaves the memory out: then the freeze does not pay for CRIU's reading of all of it. A
// tracker that makes parent images has CRIU compare for itself.
func (s *source) lazy() bool {
	return s.req.Inventory.Engine.LazyPages && !s.whole && s.tracker.Parent() == ""
}

// costs are those of the way that the memory will go. What the target can do is not known here: most fill it in.
func (s *source) costs() costs {
	_, exact := track.AsExact(s.tracker)
	switch {
	case !s.lazy():
		return imaged
	case !exact:
		return compared
	}
	return watched
}

// dumpLazy makes the final dump without the memory, which sendMemory then reads from the tree itself: it stands still.
func (s *source) dumpLazy(ctx context.Context, dir *os.File) (engine.Hold, error) {
	return s.lent.Engine().Dump(ctx, engine.DumpRequest{
		Tree: s.lent.Tree(), Options: s.lent.Options(), FinalState: s.final, Images: dir, Lazy: true, AtFreeze: s.atFreeze,
	})
}

// sendMemory sends every space that a lazy dump has described.
func (s *source) sendMemory(ctx context.Context) error {
	path := filepath.Join(s.dir, "dump")
	spaces, err := image.Spaces(path)
	if err != nil {
		return errs.New(errs.Failed, "read images: %w", err)
	}
	memory, err := s.lent.Memory()
	if err != nil {
		return errs.New(errs.KindOf(err), "open the tree's memory: %w", err)
	}
	defer memory.Close()
	begun := time.Now()
	for _, sp := range spaces {
		p := passage{out: s.out, space: sp, changes: s.changed, read: func(addr uint64, buf []byte) error { return memory.Read(sp.ID, addr, buf) }}
		if err := p.send(ctx, path); err != nil {
			return errs.New(errs.KindOf(err), "send the memory of %s: %w", sp, err)
		}
	}
	s.log.Info("memory of the frozen tree mapped", "took", time.Since(begun))
	return nil
}

// sendChanges sends what the tree has changed since the last round, as one more round would: it stands still. What can only be read when
// CRIU has let go of it, and what the tracker knows nothing of, sendMemory sends.
func (s *source) sendChanges(ctx context.Context) error {
	begun := time.Now()
	s.changed = s.changes(ctx)
	looked := time.Since(begun)
	if err := s.changed.HandOver(ctx, s.out.offer); err != nil {
		return errs.New(errs.KindOf(err), "send what has changed: %w", err)
	}
	st := s.changed.Stats()
	s.log.Info("changes of the frozen tree sent", "changed", st.Emitted, "of", st.Scanned, "looked", looked, "took", time.Since(begun))
	return nil
}

// changes are what has changed since the rounds, nil if the tracker cannot say: then every page is read and compared by digest.
func (s *source) changes(ctx context.Context) *track.Changes {
	exact, ok := track.AsExact(s.tracker)
	if !ok {
		return nil
	}
	c, err := exact.Changed(ctx)
	if err != nil {
		s.log.Warn("the tracker does not know what changed: all pages are read", "tracker", s.tracker.Name(), "error", err)
		return nil
	}
	return c
}

// passage is one space of a frozen tree on its way into the stream.
type passage struct {
	out     *outgoing
	space   image.Space
	changes *track.Changes
	read    func(addr uint64, buf []byte) error // of the process's memory
	buf     [transfer.MaxRun * image.PageSize]byte
}

// send maps what the pagemap in dir lists: pages that CRIU has written from its file, those that it has left out from the tree.
func (p *passage) send(ctx context.Context, dir string) error {
	id, entries, err := image.ReadPagemap(dir, p.space)
	if err != nil {
		return err
	}
	written, err := os.Open(filepath.Join(dir, image.PagesName(id)))
	if err != nil {
		return errs.New(errs.Failed, "read pages: %w", err)
	}
	defer written.Close()
	if err := p.out.Begin(spaceOf(p.space)); err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.entry(e, written); err != nil {
			return err
		}
	}
	return nil
}

func (p *passage) entry(e image.Entry, written io.Reader) error {
	switch {
	case e.Flags&image.PEPresent != 0:
		return p.pages(e.Addr, e.End(), e.Flags, func(_ uint64, buf []byte) error {
			_, err := io.ReadFull(written, buf)
			return err
		})
	case e.Flags&image.PELazy != 0:
		flags := e.Flags | image.PEPresent
		return p.changes.Split(p.space.ID, e.Addr, e.End(), func(start, end uint64, same bool) error {
			if same {
				return p.out.MapHole(spaceOf(p.space), start, flags, (end-start)/image.PageSize)
			}
			return p.pages(start, end, flags, p.read)
		})
	}
	return errs.New(errs.Failed, "page %#x of %s has the flags %#x: CRIU has written neither the page nor that it is left out", e.Addr, p.space, e.Flags)
}

// pages maps pages by their content.
func (p *passage) pages(addr, end uint64, flags uint32, read func(addr uint64, buf []byte) error) error {
	for addr < end {
		buf := p.buf[:min(end-addr, uint64(len(p.buf)))]
		if err := read(addr, buf); err != nil {
			return errs.New(errs.Failed, "read page %#x of %s: %w", addr, p.space, err)
		}
		if err := p.out.Map(spaceOf(p.space), addr, flags, buf); err != nil {
			return err
		}
		addr += uint64(len(buf))
	}
	return nil
}
