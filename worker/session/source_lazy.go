package session

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"drover/engine"
	"drover/engine/image"
	"drover/internal/errs"
	"drover/transfer"
)

// lazy says whether the final dump leaves the memory out: then the freeze does not pay for CRIU's reading of all of it. A
// tracker that makes parent images has CRIU compare for itself.
func (s *source) lazy() bool {
	return s.req.Inventory.Engine.LazyPages && s.tracker.Parent() == ""
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
	for _, sp := range spaces {
		p := passage{out: s.out, space: sp, read: func(addr uint64, buf []byte) error { return memory.Read(sp.ID, addr, buf) }}
		if err := p.send(ctx, path); err != nil {
			return errs.New(errs.KindOf(err), "send the memory of %s: %w", sp, err)
		}
	}
	return nil
}

// passage is one space of a frozen tree on its way into the stream.
type passage struct {
	out   *outgoing
	space image.Space
	read  func(addr uint64, buf []byte) error // of the process's memory
	buf   [transfer.MaxRun * image.PageSize]byte
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
	flags := e.Flags
	read := func(_ uint64, buf []byte) error {
		_, err := io.ReadFull(written, buf)
		return err
	}
	switch {
	case flags&image.PEPresent != 0:
	case flags&image.PELazy != 0:
		flags, read = flags|image.PEPresent, p.read
	default:
		return errs.New(errs.Failed, "page %#x of %s has the flags %#x: CRIU has written neither the page nor that it is left out", e.Addr, p.space, e.Flags)
	}
	for addr := e.Addr; addr < e.End(); {
		buf := p.buf[:min(e.End()-addr, uint64(len(p.buf)))]
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
