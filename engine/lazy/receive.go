package lazy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

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
	spaces, err := readWanted(within(f.dir, "."))
	f.mu.Lock()
	if f.err != nil {
		f.mu.Unlock()
		c.Close()
		return err
	}
	f.engine, f.spaces = c, spaces
	f.mu.Unlock()
	if err != nil {
		c.Close() // nobody fills: the restore comes to nothing
		return err
	}
	for {
		what, file, err := receiveFile(c)
		if err != nil {
			return errors.New("the engine gave the restore up")
		}
		if what != packetCRIU || file == nil || !f.take(file) {
			if file != nil {
				file.Close()
			}
			return fmt.Errorf("the engine sent %q, which means nothing here", what)
		}
	}
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
)

// listen reads pids and userfaultfds from CRIU until it goes or says that it has finished.
func (f *Filler) listen(c *net.UnixConn) error {
	var b [4]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return errors.New("CRIU gave the restore up")
		}
		n := int32(binary.NativeEndian.Uint32(b[:]))
		switch {
		case n == restoreFinished:
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
	s := f.spaces[pid]
	switch {
	case f.err != nil:
		return f.err
	case s == nil:
		return errors.New("the images have no memory of it")
	case s.descriptor() != nil:
		return errors.New("it has come before")
	}
	s.mu.Lock()
	s.uffd = uffd
	s.mu.Unlock()
	f.serving.Go(func() { f.serve(s, uffd) })
	f.changed()
	return nil
}

// receiveFile reads one byte with a descriptor beside it, nil if there is none.
func receiveFile(c *net.UnixConn) (what byte, file *os.File, err error) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(b[:], oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return 0, nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) == 0 {
		return b[0], nil, err
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return b[0], nil, err
	}
	unix.CloseOnExec(fds[0])
	return b[0], os.NewFile(uintptr(fds[0]), "received"), nil
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
