package lazy

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine/image"
)

const (
	pageSize = image.PageSize
	// chunkBytes are put in place in one go: what a fault waits for at most.
	chunkBytes = 64 << 10
)

// space is the memory of one process: one of the images, or one that those have forked since.
type space struct {
	pid    uint64 // that Memory has its pages by: of the process of the images that it descends from
	forked bool

	// gate is held shared while pages are put in place, and alone while it is read what the process says. A process that drops or
	// moves memory, or forks, stands until that has been read: nobody puts a page where it no longer belongs.
	gate sync.RWMutex

	mu    sync.Mutex // guards what follows
	wants wants
	uffd  *os.File      // nil until it has come, and when all is in place
	left  chan struct{} // closed when nobody reads the userfaultfd any more, and it is closed
	early uint64        // pages that were asked for
}

func newSpace(pid uint64, w wants) *space {
	return &space{pid: pid, wants: w, left: make(chan struct{})}
}

func (s *space) descriptor() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uffd
}

func (s *space) close() {
	s.mu.Lock()
	uffd := s.uffd
	s.uffd = nil
	s.mu.Unlock()
	if uffd != nil {
		uffd.Close() // waits for who reads it, who may need mu
	}
}

// idle says whether nothing of it is wanted.
func (s *space) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.wants) == 0
}

// errBusy says that the process is just doing something to its memory, which must be read first.
var errBusy = errors.New("the process changes its memory")

// errEnded says that the process has ended, or runs another program: nothing of this memory is wanted any more.
var errEnded = errors.New("the process has ended")

// put puts the next chunk of [addr, end) in place; done is 0 when nothing of it is wanted.
func (s *space) put(ctx context.Context, m Memory, addr, end uint64) (done, zeros uint64, err error) {
	for {
		done, zeros, err = s.tryPut(m, addr, end)
		if errors.Is(err, errEnded) {
			s.close() // many children may come and go
			return done, zeros, nil
		}
		if !errors.Is(err, errBusy) {
			return done, zeros, err
		}
		if done > 0 {
			return done, zeros, nil
		}
		if err := pause(ctx); err != nil {
			return 0, 0, err
		}
	}
}

func (s *space) tryPut(m Memory, addr, end uint64) (done, zeros uint64, err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	s.mu.Lock()
	uffd := s.uffd
	one, ok := s.wants.take(addr, end, chunkBytes)
	s.mu.Unlock()
	if !ok {
		return 0, 0, nil
	}
	if uffd == nil {
		return 0, 0, errors.New("its userfaultfd was closed")
	}
	at := one.addr
	err = control(uffd, func(fd int) error {
		return each(m, s.pid, one.from, one.from+one.end-one.addr, func(r Run) error {
			n, err := s.insist(fd, r, at)
			at += n
			if r.Zero > 0 {
				zeros += n
			}
			return err
		})
	})
	if spares, ok := m.(Sparing); ok {
		spares.Done(s.pid, one.from, one.from+at-one.addr)
	}
	switch {
	case err == nil:
	case errors.Is(err, unix.ESRCH):
		s.mu.Lock()
		done = s.wants.bytes() + one.end - one.addr
		s.wants = nil
		s.mu.Unlock()
		return done, 0, errEnded
	case errors.Is(err, errBusy):
		s.mu.Lock()
		s.wants.put(one.part(at, one.end))
		s.mu.Unlock()
	}
	return at - one.addr, zeros, err
}

// insist puts a run in place at addr, and says how far it came.
func (s *space) insist(fd int, r Run, addr uint64) (done uint64, err error) {
	all := r.pages() * pageSize
	again := false
	most := all // halves where a chunk reaches over the end of a mapping, which the kernel does not take
	for done < all {
		try := r.clip(r.Addr+done, r.Addr+min(done+most, all))
		n, err := try.put(fd, addr+done)
		done += n
		switch {
		case err == nil:
			most, again = all, false
		case errors.Is(err, unix.ENOENT) && try.pages() > 1:
			most = max(pageSize, try.pages()/2*pageSize)
		case errors.Is(err, unix.ENOENT) && !again: // unmapped just now? Then its event is not read yet: EAGAIN
			again = true
			continue
		case errors.Is(err, unix.ENOENT) && s.forked: // its parent did not give it that mapping (MADV_DONTFORK)
			done += pageSize
			again = false
		case errors.Is(err, unix.EAGAIN):
			return done, errBusy
		default:
			return done, explain(err, addr+done)
		}
	}
	return done, nil
}

// fork is the memory of a child that the process has just made: it has what is in place here, and lacks what is wanted here.
func (s *space) fork(uffd *os.File, m Memory) *space {
	s.mu.Lock()
	defer s.mu.Unlock()
	child := newSpace(s.pid, slices.Clone(s.wants))
	if spares, ok := m.(Sparing); ok {
		for _, w := range child.wants {
			spares.Again(s.pid, w.from, w.from+w.end-w.addr)
		}
	}
	child.forked, child.uffd = true, uffd
	return child
}

func pause(ctx context.Context) error {
	t := time.NewTimer(50 * time.Microsecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
