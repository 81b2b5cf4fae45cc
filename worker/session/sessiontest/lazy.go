package sessiontest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/lazy"
	"drover/worker/tree"
)

// leaveOut writes what a lazy dump writes: the pages of shared memory, and of the others only where they are.
func leaveOut(dir string, memory map[image.Space]map[uint64][]byte) error {
	id := uint32(0)
	for s, pages := range memory {
		id++
		w, err := image.NewPagemapWriter(dir, s, id)
		if err != nil {
			return err
		}
		for _, addr := range slices.Sorted(maps.Keys(pages)) {
			if s.Kind == image.Shmem {
				err = w.Run(addr, image.PEPresent, pages[addr])
			} else {
				err = w.Hole(addr, image.PELazy, 1)
			}
			if err != nil {
				return err
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Memory is tree.Lent's.
func (l lent) Memory() (tree.Memory, error) {
	if err := l.step("memory"); err != nil {
		return nil, err
	}
	if s := l.copy().State(); s != Frozen {
		return nil, fmt.Errorf("the tree whose memory is read is %s", s)
	}
	return still{l.copy().Memory()}, nil
}

type still struct {
	pages map[image.Space]map[uint64][]byte
}

func (still) Close() error { return nil }

func (s still) Read(pid, addr uint64, buf []byte) error {
	for at := 0; at < len(buf); at += image.PageSize {
		page, ok := s.pages[image.Space{Kind: image.Process, ID: pid}][addr+uint64(at)]
		if !ok {
			return engine.ErrGone
		}
		copy(buf[at:], page)
	}
	return nil
}

// Fills is tree.Shell's.
func (s shell) Fills(context.Context) error { return s.step("fills") }

// Filler is tree.Shell's.
func (s shell) Filler(m lazy.Memory) (tree.Filler, error) {
	return filler{s.place, m}, s.step("filler")
}

type filler struct {
	place  *place
	memory lazy.Memory
}

func (filler) Close() {}

func (f filler) Fill(ctx context.Context, _ func(done, all uint64)) (lazy.Stats, error) {
	if err := f.place.step("fill"); err != nil {
		return lazy.Stats{}, err
	}
	c := f.place.copy()
	if s := c.State(); s != Frozen {
		return lazy.Stats{}, fmt.Errorf("the tree that is filled is %s", s)
	}
	for _, pid := range []uint64{1, 7} { // as Run made them
		for r := range f.memory.Runs(pid, 0, 1<<47) {
			if err := ctx.Err(); err != nil {
				return lazy.Stats{}, err
			}
			c.fill(image.Space{Kind: image.Process, ID: pid}, r.Addr, r.Data)
		}
	}
	return lazy.Stats{}, nil
}

// fill puts pages where a restore has left them out.
func (c *Copy) fill(s image.Space, addr uint64, data []byte) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	for page := range slices.Chunk(data, image.PageSize) {
		c.memory[s][addr] = slices.Clone(page)
		addr += image.PageSize
	}
}
