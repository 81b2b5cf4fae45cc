package sessiontest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/lazy"
	"drover/internal/errs"
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

// Fill is tree.Shell's: the restore fills.
func (s shell) Fill(_ context.Context, memory lazy.Files, _ bool) (func(), error) {
	if err := s.step("fill"); err != nil {
		return nil, err
	}
	f := &filler{memory: memory}
	for _, file := range []**os.File{&f.memory.Pages, &f.memory.Index, &f.memory.Spilled, &f.memory.Seals} { // as another process has its own
		if *file == nil {
			continue
		}
		fd, err := unix.FcntlInt((*file).Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		*file = os.NewFile(uintptr(fd), (*file).Name())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filler = f
	return f.letGo, nil
}

// filler is what fills in the memory of a tree. It goes on as slowly as the world's step "filled" lets it, and stands still when "beat" fails.
type filler struct {
	memory lazy.Files

	mu    sync.Mutex
	begun bool
	state tree.Filling
	err   error
}

// letGo ends a filler whose restore has not begun.
func (f *filler) letGo() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.begun {
		f.end()
	}
}

func (f *filler) end() {
	for _, file := range []*os.File{f.memory.Pages, f.memory.Index, f.memory.Spilled, f.memory.Seals} {
		file.Close() // nil is refused
	}
}

// Filling is tree.Shell's.
func (s shell) Filling() (tree.Filling, error) {
	s.mu.Lock()
	f := s.filler
	s.mu.Unlock()
	if f == nil {
		return tree.Filling{}, errs.New(errs.NotFound, "nobody fills")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Beats > 0 && s.host.world.fault(s.host.name+":beat") == nil {
		f.state.Beats++
	}
	return f.state, f.err
}

// serve fills a tree that has been restored, of which it has every page.
func (f *filler) serve(p *place, c *Copy) error {
	f.mu.Lock()
	f.begun = true
	f.mu.Unlock()
	m, err := lazy.OpenMemory(f.memory)
	if err != nil {
		f.end()
		return err
	}
	bytes := uint64(0)
	for _, pid := range []uint64{1, 7} { // as Run made them
		for r := range m.Runs(pid, 0, 1<<47) {
			data := r.Data
			if s := r.Sealed; s.Pages > 0 {
				data = make([]byte, s.Pages*image.PageSize)
				if err := s.In.Read(s.First, data); err != nil {
					return err
				}
			} else if data == nil {
				data = make([]byte, r.Zero*image.PageSize)
			}
			c.fill(image.Space{Kind: image.Process, ID: pid}, r.Addr, slices.Clone(data))
			bytes += uint64(len(data))
		}
	}
	f.say(tree.Filling{All: bytes, Beats: 1}, nil)
	go func() {
		defer f.end()
		defer m.Close()
		if err := p.step("filled"); err != nil {
			c.Kill(9)
			f.say(tree.Filling{All: bytes}, err)
			return
		}
		f.say(tree.Filling{Done: bytes, All: bytes, Over: true}, nil)
	}()
	return nil
}

func (f *filler) say(state tree.Filling, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.err = state, err
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
