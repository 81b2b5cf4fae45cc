package lazy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// serve answers one process until its userfaultfd is closed. It reads at once whatever comes: a process that forks, or moves or
// unmaps memory, stands until the event has been read.
func (f *Filler) serve(s *space, uffd *os.File) {
	defer close(s.left)
	raw, err := uffd.SyscallConn()
	buf := make([]byte, 64*msgSize)
	for err == nil {
		err = raw.Read(func(fd uintptr) bool { return f.listenTo(s, int(fd), buf) })
	}
}

// listenTo reads what a process says, if anything, and acts on it before anybody else does something to its memory.
func (f *Filler) listenTo(s *space, fd int, buf []byte) (heard bool) {
	s.gate.Lock()
	defer s.gate.Unlock()
	n, err := unix.Read(fd, buf)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return false
	}
	if err != nil || n < msgSize {
		f.failLater(fmt.Errorf("read the userfaultfd of process %d: %w", s.pid, err))
		return false
	}
	// Whoever's event was read goes on already: a page that is put in place now is not in the child of a fork, say. So events are
	// acted on first, in their order.
	for _, faults := range []bool{false, true} {
		for b := buf[:n-n%msgSize]; len(b) > 0; b = b[msgSize:] {
			if (b[0] == eventPagefault) != faults {
				continue
			}
			if err := f.react(s, fd, b[:msgSize]); err != nil {
				f.failLater(fmt.Errorf("process %d: %w", s.pid, err))
			}
		}
	}
	return true
}

// failLater is fail for who holds a gate, or is itself waited for.
func (f *Filler) failLater(err error) { go f.fail(err) }

// react acts on one message. The caller holds the gate.
func (f *Filler) react(s *space, fd int, msg []byte) error {
	arg := func(i int) uint64 { return binary.NativeEndian.Uint64(msg[8+8*i:]) }
	cut := func(addr, end uint64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wants.cut(addr, end)
	}
	switch msg[0] {
	case eventPagefault:
		return f.answer(s, fd, arg(1)&^(pageSize-1))
	case eventFork:
		child := int(binary.NativeEndian.Uint32(msg[8:])) // which came with the message, as open as its parent's
		unix.CloseOnExec(child)
		return f.adopt(s, os.NewFile(uintptr(child), "userfaultfd"))
	case eventRemap:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wants.move(arg(0), arg(1), arg(2))
		return nil
	case eventRemove, eventUnmap:
		cut(arg(0), arg(1))
		return nil
	}
	return fmt.Errorf("its userfaultfd says %#x, which drover does not know", msg[0])
}

// answer puts the page of a fault in place: ours if the images leave it out, zeros if the process never wrote to it. The caller
// holds the gate.
func (f *Filler) answer(s *space, fd int, addr uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early++
	w, ours := s.wants.page(addr)
	var err error
	if ours {
		err = each(f.memory, s.pid, w.from, w.from+pageSize, func(r Run) error {
			_, err := r.put(fd, addr)
			return err
		})
	} else {
		_, err = putZeros(fd, addr, pageSize)
	}
	switch {
	case err == nil:
		f.placed.Add(pageSize)
		s.wants.cut(addr, addr+pageSize)
		if spares, ok := f.memory.(Sparing); ok && ours {
			spares.Done(s.pid, w.from, w.from+pageSize)
		}
		return nil
	case errors.Is(err, unix.EEXIST) && !ours: // put meanwhile: who waits needs only be told
		return wake(fd, addr)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT): // an event waits to be read: who waits asks again
		return wake(fd, addr)
	case errors.Is(err, unix.ESRCH):
		return nil
	}
	return explain(err, addr)
}

// adopt takes a child that a process has just forked.
func (f *Filler) adopt(parent *space, uffd *os.File) error {
	child := parent.fork(uffd, f.memory)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.filled || f.err != nil && !f.vouched: // all that its parent has it has; or it never runs
		uffd.Close()
		return nil
	case f.err != nil: // it is being killed, and must not see zeros before
		f.spaces = append(f.spaces, child)
		return nil
	}
	f.spaces = append(f.spaces, child)
	f.serving.Go(func() { f.serve(child, uffd) })
	if f.vouched {
		f.unheld = append(f.unheld, child)
		_ = f.handRest() // else with the next chunk
	}
	return nil
}
