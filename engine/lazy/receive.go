package lazy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// accept waits for the engine, and reads its conversation to the end.
func (f *Filler) accept() {
	for {
		c, err := f.listener.AcceptUnix()
		if err != nil {
			f.fail(fmt.Errorf("wait for the engine: %w", err))
			return
		}
		if fromRoot(c) != nil {
			c.Close()
			continue
		}
		f.listener.Close() // there is one restore
		if err := f.converse(c); err != nil {
			f.fail(err)
		}
		return
	}
}

// converse reads what the engine says: CRIU's connection, then nothing until it goes.
func (f *Filler) converse(c *net.UnixConn) error {
	memory, err := f.config.Memory()
	var spaces []*space
	if err == nil {
		spaces, err = readSpaces(within(f.dir, "."))
	}
	f.mu.Lock()
	if f.err != nil || err != nil {
		f.mu.Unlock()
		c.Close() // nobody fills: the restore comes to nothing
		return err
	}
	f.engine, f.memory, f.spaces, f.missing = c, memory, spaces, len(spaces)
	f.changed()
	f.mu.Unlock()
	for {
		what, file, err := receiveFile(c)
		if err != nil {
			return f.deserted()
		}
		if (what == packetRebuilt || what == packetRuns) && file == nil {
			f.mu.Lock()
			f.rebuilt, f.released = true, what == packetRuns
			f.changed()
			f.mu.Unlock()
			continue
		}
		if what != packetCRIU || file == nil || !f.take(file) {
			if file != nil {
				file.Close()
			}
			return fmt.Errorf("the engine sent %q, which means nothing here", what)
		}
	}
}

// deserted notes that the engine has hung up. A tree that was vouched for is filled nevertheless: it may run.
func (f *Filler) deserted() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.vouched {
		return errors.New("the engine gave the restore up")
	}
	f.engine.Close()
	f.engine = nil
	f.changed()
	return nil
}

// vouch hands all userfaultfds to the engine and says that the tree may be released.
func (f *Filler) vouch(ctx context.Context) error {
	f.mu.Lock()
	f.vouched, f.unheld = true, slices.Clone(f.spaces) // a child that is forked from here on is handed over as it comes
	f.mu.Unlock()
	return f.insist(ctx, func() error {
		if f.engine == nil {
			return errors.New("the engine gave the restore up")
		}
		err := f.handRest()
		if err == nil {
			err = f.say(packetVouched)
		}
		return err
	})
}

// handRest gives the engine copies of the userfaultfds that it does not have. The caller holds mu.
func (f *Filler) handRest() error {
	for len(f.unheld) > 0 && f.engine != nil {
		uffd := f.unheld[0].descriptor()
		if uffd != nil { // else the process has ended
			if err := control(uffd, func(fd int) error { return f.sayWith(unix.UnixRights(fd), packetHeld) }); err != nil {
				return err
			}
		}
		f.unheld = f.unheld[1:]
	}
	return nil
}

// insist calls say, which holds mu meanwhile, until the engine has taken what it says. An engine that is gone needs not be told.
func (f *Filler) insist(ctx context.Context, say func() error) error {
	for {
		f.mu.Lock()
		err := f.err
		if err == nil {
			err = say()
		}
		f.mu.Unlock()
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		select {
		case <-time.After(sayAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sayAgain is the pause after an engine did not read, as when it was stopped.
const sayAgain = 2 * time.Millisecond

// say sends the engine a packet, if it is there; unix.EAGAIN says that it is not reading. The caller holds mu.
func (f *Filler) say(packet ...byte) error { return f.sayWith(nil, packet...) }

func (f *Filler) sayWith(rights []byte, packet ...byte) error {
	if f.engine == nil {
		return nil
	}
	raw, err := f.engine.SyscallConn()
	if err != nil {
		return fmt.Errorf("tell the engine: %w", err)
	}
	failed := raw.Control(func(fd uintptr) {
		_, err = unix.SendmsgN(int(fd), packet, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	if failed == nil && errors.Is(err, unix.EAGAIN) {
		return unix.EAGAIN
	}
	return nil // or it has gone, which converse hears too
}

// take begins to listen to CRIU, once.
func (f *Filler) take(file *os.File) bool {
	conn, err := net.FileConn(file) // which has a descriptor of its own
	if err != nil {
		return false
	}
	file.Close()
	c, ok := conn.(*net.UnixConn)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !ok || f.err != nil || f.criu != nil {
		conn.Close()
		return false
	}
	f.criu = c
	f.serving.Go(func() {
		if err := f.listen(c); err != nil {
			f.fail(err)
		}
	})
	return true
}

// What CRIU says on its connection (criu/uffd.c): numbers of 32 bits in the host's order.
const (
	restoreFinished = 0x52535446 // LAZY_PAGES_RESTORE_FINISHED: the tree is about to run
	maxPid          = 1 << 22    // Linux has no more
	// letGoTime is how long CRIU may take from there until it has let go of the tree, in which the engine's word is waited for: one that was
	// stopped does not say it.
	letGoTime = time.Second
)

// listen reads pids and userfaultfds from CRIU until it goes or says that it has finished.
func (f *Filler) listen(c *net.UnixConn) error {
	var b [4]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.vouched { // what is held, or runs, is filled
				return nil
			}
			return errors.New("CRIU gave the restore up")
		}
		n := int32(binary.NativeEndian.Uint32(b[:]))
		switch {
		case n == restoreFinished:
			time.AfterFunc(letGoTime, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.released = true
				f.changed()
			})
			return nil
		case n < 0: // a zombie, which has no memory
			continue
		case n == 0 || n > maxPid:
			return fmt.Errorf("CRIU sent %#x in place of a pid", n)
		}
		_, file, err := receiveFile(c)
		if err == nil && !isUserfaultfd(file) {
			err = errors.New("it is not one")
		}
		if err == nil {
			err = f.begin(uint64(n), file)
		}
		if err != nil {
			if file != nil {
				file.Close()
			}
			return fmt.Errorf("take the userfaultfd of process %d: %w", n, err)
		}
	}
}

// begin takes a process's userfaultfd and answers what it says from now on.
func (f *Filler) begin(pid uint64, uffd *os.File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.spaces, func(s *space) bool { return s.pid == pid && !s.forked })
	switch {
	case f.err != nil:
		return f.err
	case i < 0:
		return errors.New("the images have no memory of it")
	case f.spaces[i].descriptor() != nil:
		return errors.New("it has come before")
	}
	s := f.spaces[i]
	s.mu.Lock()
	s.uffd = uffd
	s.mu.Unlock()
	f.missing--
	f.serving.Go(func() { f.serve(s, uffd) })
	f.changed()
	return nil
}

// receiveFile reads one byte with a descriptor beside it, nil if there is none.
func receiveFile(c *net.UnixConn) (what byte, file *os.File, err error) {
	packet, files, err := receiveInto(c, make([]byte, 1))
	if err != nil {
		return 0, nil, err
	}
	if len(files) == 0 {
		return packet[0], nil, nil
	}
	for _, f := range files[1:] {
		f.Close()
	}
	return packet[0], files[0], nil
}

// receivePacket reads one packet with the descriptors beside it, at most one of which is ever sent.
func receivePacket(c *net.UnixConn) (packet []byte, files []*os.File, err error) {
	return receiveInto(c, make([]byte, 32))
}

func receiveInto(c *net.UnixConn, b []byte) (packet []byte, files []*os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) == 0 {
		return b[:n], nil, err
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return b[:n], nil, err
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "received"))
	}
	return b[:n], files, nil
}

// isUserfaultfd says whether a descriptor is what CRIU sends: anything else is not to be read from.
func isUserfaultfd(f *os.File) bool {
	if f == nil {
		return false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	err = raw.Control(func(fd uintptr) {
		to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		is = err == nil && to == "anon_inode:[userfaultfd]"
	})
	return err == nil && is
}
