package lazy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"golang.org/x/sys/unix"

	"drover/engine/image"
)

// serve answers one process until its userfaultfd is closed. It reads at once whatever comes: a process that forks, or moves or
// unmaps memory, stands until the event has been read.
func (f *Filler) serve(s *space, uffd *os.File) {
	defer close(s.left)
	buf := make([]byte, 64*msgSize)
	for {
		n, err := uffd.Read(buf)
		if err != nil || n < msgSize {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
				f.fail(fmt.Errorf("read the userfaultfd of process %d: %w", s.pid, err))
			}
			return
		}
		for b := buf[:n-n%msgSize]; len(b) > 0; b = b[msgSize:] {
			if err := f.react(s, uffd, b[:msgSize]); err != nil {
				f.fail(fmt.Errorf("process %d: %w", s.pid, err))
			}
		}
	}
}

// react answers one message. All but page faults mean that the process did what no process does while CRIU builds it, after
// which pages would go to the wrong place.
func (f *Filler) react(s *space, uffd *os.File, msg []byte) error {
	arg := func(i int) uint64 { return binary.NativeEndian.Uint64(msg[8+8*i:]) }
	switch msg[0] {
	case eventPagefault:
		return f.answer(s, uffd, arg(1)&^(image.PageSize-1))
	case eventFork:
		unix.Close(int(binary.NativeEndian.Uint32(msg[8:]))) // the child's userfaultfd came with the message
		return errors.New("it forked before it was restored")
	case eventRemap:
		return fmt.Errorf("it moved memory from %#x to %#x before it was restored", arg(0), arg(1))
	case eventRemove, eventUnmap:
		return fmt.Errorf("it dropped the memory from %#x to %#x before it was restored", arg(0), arg(1))
	}
	return fmt.Errorf("its userfaultfd says %#x, which drover does not know", msg[0])
}

// answer puts the page of an early fault in place: ours if the images leave it out, zeros if the process never wrote to it.
func (f *Filler) answer(s *space, uffd *os.File, addr uint64) error {
	s.mu.Lock()
	s.faulted[addr] = true
	s.mu.Unlock()
	put := func(fd int) (err error) {
		if !s.wants(addr) {
			_, err = putZeros(fd, addr, image.PageSize)
			return err
		}
		found := false
		for r := range f.memory.Runs(s.pid, addr, addr+image.PageSize) {
			if r = r.clip(addr, addr+image.PageSize); r.pages() == 0 {
				continue
			}
			found = true
			_, err = r.put(fd)
			break
		}
		if !found {
			return errMissing(addr)
		}
		return err
	}
	return control(uffd, func(fd int) error {
		err := put(fd)
		if errors.Is(err, unix.EEXIST) { // put meanwhile: who waits needs only be told
			return wake(fd, addr)
		}
		return explain(err, addr)
	})
}

// wants says whether the images leave the page at addr out.
func (s *space) wants(addr uint64) bool {
	i := sort.Search(len(s.wanted), func(i int) bool { return s.wanted[i].End() > addr })
	return i < len(s.wanted) && s.wanted[i].Addr <= addr
}

// control calls g with the descriptor of a file that stays open meanwhile.
func control(file *os.File, g func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = g(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func errMissing(addr uint64) error {
	return fmt.Errorf("page %#x is missing from the copied memory", addr)
}

// explain says what an ioctl on a userfaultfd failed with.
func explain(err error, addr uint64) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("page %#x has no place: CRIU did not register its mapping: %w", addr, err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("page %#x is there already, and not by drover: %w", addr, err)
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("the process ended: %w", err)
	}
	return fmt.Errorf("put page %#x in place: %w", addr, err)
}
