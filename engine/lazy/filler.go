package lazy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"drover/engine/image"
	"drover/internal/errs"
)

// Filler fills the memory of one tree while a lazy restore of it is held. Listen makes one, Close ends it whatever became of it.
type Filler struct {
	dir      *os.File
	memory   Memory
	listener *net.UnixListener
	serving  sync.WaitGroup

	mu     sync.Mutex
	engine *net.UnixConn
	criu   *net.UnixConn
	spaces map[uint64]*space // by pid as in the tree's own pid namespace; nil until the engine has come
	come   chan struct{}     // closed, and replaced, whenever one of these changes
	err    error             // why the memory cannot be filled
	filled bool
	closed bool
}

// space is the memory of one process.
type space struct {
	pid    uint64
	wanted []image.Entry // the pages that the images do not have, rising

	mu      sync.Mutex
	uffd    *os.File        // nil until it has come, and when all is filled
	left    chan struct{}   // closed when nobody reads the userfaultfd any more, and it is closed
	faulted map[uint64]bool // pages that were asked for early, and are ours although they are there already
}

// Listen waits for a lazy restore in dir, the images' directory, in the background. It may be called before the images are
// there; once the engine comes they must be. memory must have every page that they leave out. There is one Filler a directory;
// an earlier one's socket is replaced.
func Listen(dir string, memory Memory) (*Filler, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("listen for a restore: %w", err)
	}
	l, err := listenIn(d, Socket, "unixpacket")
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("listen for a restore in %s: %w", dir, err)
	}
	f := &Filler{dir: d, memory: memory, listener: l, come: make(chan struct{})}
	f.serving.Go(f.accept)
	return f, nil
}

// Close gives up what has not been filled: the engine's Commit refuses then. After a Fill that returned nil it loses nothing.
func (f *Filler) Close() {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.closed = true
	f.failLocked(errors.New("filling was given up"))
	f.listener.Close()
	f.hangUp()
	f.mu.Unlock()
	f.serving.Wait()
	removeIn(f.dir, Socket)
	f.dir.Close()
}

// fail remembers why the memory cannot be filled; the first reason is kept. What waits for a page is let go on, with zeros, and the
// engine takes what CRIU still sends: the restore then comes to its hold, where it can only be aborted, instead of waiting until its time is up.
func (f *Filler) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failLocked(err)
}

// reason is fail that says which the first reason was.
func (f *Filler) reason(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failLocked(err)
	return f.err
}

func (f *Filler) failLocked(err error) {
	if f.err == nil && !f.filled {
		f.err = err
		for _, s := range f.spaces {
			s.close()
		}
		f.hangUp()
	}
	f.changed()
}

// hangUp ends the conversation. The caller holds mu.
func (f *Filler) hangUp() {
	for _, c := range []*net.UnixConn{f.engine, f.criu} {
		if c != nil {
			c.Close()
		}
	}
}

// changed wakes who waits. The caller holds mu.
func (f *Filler) changed() {
	close(f.come)
	f.come = make(chan struct{})
}

// arriveTime bounds how long Fill waits for a userfaultfd: at a hold all of them have been sent.
const arriveTime = 10 * time.Second

// arrived waits until the userfaultfd of every process has come.
func (f *Filler) arrived(ctx context.Context) ([]*space, error) {
	late := time.NewTimer(arriveTime)
	defer late.Stop()
	for {
		f.mu.Lock()
		come := f.come
		spaces, missing, err := f.state()
		f.mu.Unlock()
		if err != nil || missing == "" {
			return spaces, err
		}
		select {
		case <-come:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", missing, ctx.Err())
		case <-late.C:
			return nil, errs.New(errs.Timeout, "%s has not come within %s", missing, arriveTime)
		}
	}
}

// state lists what there is to fill and says what has not come. The caller holds mu.
func (f *Filler) state() (spaces []*space, missing string, err error) {
	switch {
	case f.filled:
		return nil, "", errs.New(errs.Conflict, "it has been filled")
	case f.err != nil || f.spaces == nil:
		return nil, "the engine", f.err
	}
	for _, s := range f.spaces {
		if s.descriptor() == nil {
			return nil, fmt.Sprintf("the userfaultfd of process %d", s.pid), nil
		}
		spaces = append(spaces, s)
	}
	return spaces, "", nil
}

func (s *space) descriptor() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uffd
}

func (s *space) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uffd != nil {
		s.uffd.Close()
		s.uffd = nil
	}
}

// readWanted finds in the images what they leave out of each process's memory.
func readWanted(dir string) (map[uint64]*space, error) {
	all, err := image.Spaces(dir)
	if err != nil {
		return nil, err
	}
	spaces := map[uint64]*space{}
	for _, in := range all {
		if in.Kind != image.Process {
			continue
		}
		wanted, err := Wanted(dir, in.ID)
		if err != nil {
			return nil, err
		}
		spaces[in.ID] = &space{pid: in.ID, wanted: wanted, left: make(chan struct{}), faulted: map[uint64]bool{}}
	}
	return spaces, nil
}

// Wanted lists, rising, the pages of a process that a lazy dump in dir has left out. pid is as in the tree's own pid namespace.
func Wanted(dir string, pid uint64) ([]image.Entry, error) {
	_, entries, err := image.ReadPagemap(dir, image.Space{Kind: image.Process, ID: pid})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(entries, func(e image.Entry) bool {
		return e.Flags&image.PELazy == 0 // CRIU restores these, and no others (criu/mem.c)
	}), nil
}
