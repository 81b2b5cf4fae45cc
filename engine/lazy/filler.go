package lazy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"drover/engine/image"
	"drover/internal/errs"
)

// Config says what a Filler fills.
type Config struct {
	// Memory is where the pages are. It is called once, when the engine has come and the images are complete.
	Memory func() (Memory, error)
	// Kill ends every process of the tree and returns nil when none is left. It is called if memory that the Filler has vouched
	// for cannot be put in place, again and again until it succeeds.
	Kill func() error
	// Eager fills from the hold on, with all that the machine gives. Else nothing but what is asked for is put in place before the tree has
	// been released, so that the release is not held up, and then the tree's own work goes first.
	Eager bool
	// Scarce says, when so many bytes are still to be put in place, whether the machine needs what Sparing memory can give back meanwhile. A
	// program that asks for pages waits longer then. nil is always.
	Scarce func(left uint64) bool
}

// Filler fills the memory of one tree that is restored lazily. Listen makes one, Close ends it whatever became of it.
type Filler struct {
	dir      *os.File
	config   Config
	listener *net.UnixListener
	serving  sync.WaitGroup
	placed   atomic.Uint64 // bytes, those of faults and of children included

	mu       sync.Mutex
	memory   Memory
	engine   *net.UnixConn
	criu     *net.UnixConn
	spaces   []*space      // the images' processes first; nil until the engine has come
	unheld   []*space      // of which the engine has no copy yet
	missing  int           // of them, userfaultfds that have not come
	come     chan struct{} // closed, and replaced, whenever one of these changes
	err      error         // why the memory cannot be filled
	rebuilt  bool          // the restore is held
	vouched  bool          // the engine may release the tree: no userfaultfd may be let go of before its page is in place
	released bool          // the tree runs, or is about to
	due      bool          // what is wanted is to be put in place from now on
	filled   bool
	closed   bool
	stood    uint64 // placed, when Stands was called last
}

// Listen waits for a lazy restore in dir, the images' directory, in the background. It may be called before the images are
// there; once the engine comes they must be. There is one Filler a directory; an earlier one's socket is replaced.
func Listen(dir string, c Config) (*Filler, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("listen for a restore: %w", err)
	}
	l, err := listenIn(d, Socket, "unixpacket")
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("listen for a restore in %s: %w", dir, err)
	}
	f := &Filler{dir: d, config: c, listener: l, come: make(chan struct{})}
	f.serving.Go(f.accept)
	return f, nil
}

// Close gives up what has not been filled: the engine's Commit refuses then, and a tree that was vouched for is killed. After a
// Fill that returned nil it loses nothing.
func (f *Filler) Close() {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.closed = true
	f.mu.Unlock()
	f.fail(errors.New("filling was given up"))
	f.listener.Close()
	f.mu.Lock()
	f.hangUp()
	f.mu.Unlock()
	f.serving.Wait()
	removeIn(f.dir, Socket)
	f.dir.Close()
}

// Dismiss says that nobody will restore: a Filler whose engine has not come fails. Another goes on.
func (f *Filler) Dismiss() {
	f.mu.Lock()
	come := f.engine != nil || f.vouched
	f.mu.Unlock()
	if !come {
		f.fail(errors.New("nobody restores"))
	}
}

// fail remembers why the memory cannot be filled; the first reason is kept. Before the Filler has vouched, what waits for a page is
// let go on, with zeros, and the engine takes what CRIU still sends: the restore then comes to its hold, where it can only be
// aborted, instead of waiting until its time is up. Afterwards the tree is killed first: it may run.
func (f *Filler) fail(err error) {
	f.mu.Lock()
	if f.err != nil || f.filled {
		f.mu.Unlock()
		return
	}
	f.err = err
	vouched := f.vouched
	f.changed()
	f.mu.Unlock()
	for vouched && f.config.Kill() != nil {
		<-time.After(killAgain) // whoever asks for a page waits: nothing else may be done
	}
	f.mu.Lock()
	all := f.spaces // also those that were forked meanwhile
	f.mu.Unlock()
	for _, s := range all {
		s.close()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangUp()
}

// killAgain is the pause after a tree could not be killed.
const killAgain = 100 * time.Millisecond

// reason is fail that says which the first reason was.
func (f *Filler) reason(err error) error {
	f.fail(err)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
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

// arriveTime bounds how long a restore may take from when the engine has come to its hold.
const arriveTime = 2 * time.Minute

// await waits until something is so, which is asked with mu held: that the engine has come, or that the restore is held and the
// userfaultfd of every process has come.
func (f *Filler) await(ctx context.Context, so func() bool) error {
	var late <-chan time.Time
	for {
		f.mu.Lock()
		come, err := f.come, f.err
		waits := !so()
		if f.filled {
			err = errs.New(errs.Conflict, "it has been filled")
		}
		if f.spaces != nil && late == nil {
			late = time.After(arriveTime)
		}
		f.mu.Unlock()
		if err != nil || !waits {
			return err
		}
		select {
		case <-come:
		case <-ctx.Done():
			return fmt.Errorf("wait for the engine: %w", ctx.Err())
		case <-late:
			return errs.New(errs.Timeout, "the restore was not held, with a userfaultfd of every process, within %s", arriveTime)
		}
	}
}

// readSpaces finds in the images what they leave out of each process's memory.
func readSpaces(dir string) (spaces []*space, err error) {
	all, err := image.Spaces(dir)
	if err != nil {
		return nil, err
	}
	for _, in := range all {
		if in.Kind != image.Process {
			continue
		}
		entries, err := Wanted(dir, in.ID)
		if err != nil {
			return nil, err
		}
		w := make(wants, 0, len(entries))
		for _, e := range entries {
			w = append(w, want{e.Addr, e.End(), e.Addr})
		}
		spaces = append(spaces, newSpace(in.ID, w))
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
