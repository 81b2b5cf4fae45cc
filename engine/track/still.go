package track

import (
	"fmt"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/internal/proc"
	"drover/internal/errs"
)

// Still reads the memory of a tree that stands still, as the holder of a dump keeps it. It is used by one goroutine.
type Still struct {
	tree  engine.Tree
	pids  map[uint64]int // by pid in the tree's own namespace
	named uint64         // whose memory is open
	open  *process       // nil if none
}

// OpenStill looks which processes the tree has.
func OpenStill(t engine.Tree) (*Still, error) {
	s := &Still{tree: t, pids: map[uint64]int{}}
	for _, pid := range proc.OfTree(t) {
		s.pids[uint64(proc.InnerPid(pid))] = pid
	}
	if len(s.pids) == 0 {
		return nil, fmt.Errorf("read memory of pid %d: %w", t.Pid, engine.ErrGone)
	}
	return s, nil
}

// Read fills buf, a number of whole pages, with what the process with that pid (in the tree's own pid namespace) has at addr.
// A page that is not there is an error: it was when the tree was dumped.
func (s *Still) Read(pid, addr uint64, buf []byte) error {
	if s.open == nil || s.named != pid {
		host, ok := s.pids[pid]
		if !ok {
			return errs.New(errs.Failed, "read memory of pid %d: %w", pid, engine.ErrGone)
		}
		s.Close()
		p, err := openProcess(host)
		if err != nil {
			return errs.New(errs.Failed, "read memory of pid %d: %w", host, err)
		}
		s.open, s.named = p, pid
	}
	there := s.open.read(addr, buf)
	for i := range len(buf) / image.PageSize {
		if !there(i) {
			return errs.New(errs.Failed, "read memory of pid %d: page %#x cannot be read", s.open.pid, addr+uint64(i*image.PageSize))
		}
	}
	return nil
}

// Close may be called again.
func (s *Still) Close() error {
	if s.open != nil {
		s.open.close()
		s.open = nil
	}
	return nil
}
