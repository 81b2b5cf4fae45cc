package lazy

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// The conversation has three parts. CRIU connects to criuSocket in its working directory and sends every process's pid and
// userfaultfd (criu/uffd.c). The engine, which listens there, passes that connection on to the Filler, which listens on Socket,
// and keeps a copy: CRIU says a last word when the tree is released, and kills the tree if nobody has the other end then. The
// Filler says one word back to the engine: that every page is in place. Without it the engine commits nothing.
const (
	// Socket is the name in the images' directory under which a Filler listens.
	Socket = "fill.socket"

	criuSocket = "lazy-pages.socket" // LAZY_PAGES_SOCK_NAME in criu/uffd.c
)

// The packets between engine and Filler, a byte each.
const (
	packetCRIU   = 'C' // with CRIU's connection beside it
	packetFilled = 'F'
)

// Relay is the engine's end: it connects one restore's CRIU with the Filler that listens in the images' directory.
type Relay struct {
	images   *os.File
	filler   *net.UnixConn
	listener *net.UnixListener
	done     chan struct{} // closed when nobody listens for CRIU any more

	mu     sync.Mutex
	criu   *net.UnixConn // the copy that CRIU's last word goes to
	filled bool
	closed bool
}

// NewRelay connects to the Filler and waits for CRIU in the background. images stays the caller's and must be open until Close.
// errs.Invalid if no Filler listens there.
func NewRelay(images *os.File) (*Relay, error) {
	filler, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: within(images, Socket)})
	if err != nil {
		return nil, errs.New(errs.Invalid, "nobody listens in %s to fill the tree's memory: %w", images.Name(), err)
	}
	r := &Relay{images: images, filler: filler, done: make(chan struct{})}
	if err := fromRoot(filler); err != nil {
		filler.Close()
		return nil, err
	}
	if r.listener, err = listenIn(images, criuSocket, "unix"); err != nil {
		filler.Close()
		return nil, fmt.Errorf("listen for CRIU: %w", err)
	}
	go r.introduce(r.listener)
	return r, nil
}

// introduce passes the connection of CRIU on to the Filler, and reads it itself if the Filler goes before all is filled: else
// processes would wait for ever for a Filler whose userfaultfds are still on the way, and the restore would not come to its hold.
func (r *Relay) introduce(l *net.UnixListener) {
	defer close(r.done)
	c := r.meet(l)
	if c == nil {
		return
	}
	if r.pass(c) != nil {
		c.Close() // CRIU gives up
		return
	}
	if r.deserted() {
		discard(c)
	}
}

// meet waits for CRIU; nil if all is over.
func (r *Relay) meet(l *net.UnixListener) *net.UnixConn {
	defer removeIn(r.images, criuSocket)
	defer l.Close()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil
		}
		if fromRoot(c) == nil && r.keep(c) {
			return c
		}
		c.Close()
	}
}

// deserted waits until the Filler has said its word, and leaves it for Filled, or has gone without.
func (r *Relay) deserted() bool {
	raw, err := r.filler.SyscallConn()
	if err != nil {
		return false
	}
	n, b := 0, make([]byte, 1)
	err = raw.Read(func(fd uintptr) bool {
		var failed error
		n, _, failed = unix.Recvfrom(int(fd), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return err == nil && n <= 0
}

// discard reads what CRIU sends, for nobody, until it ends.
func discard(c *net.UnixConn) {
	for {
		_, file, err := receiveFile(c)
		if file != nil {
			file.Close()
		}
		if err != nil {
			return
		}
	}
}

// keep takes CRIU's connection, unless all is over.
func (r *Relay) keep(c *net.UnixConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.criu = c
	}
	return !r.closed
}

func (r *Relay) pass(c *net.UnixConn) error {
	f, err := c.File()
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd()) // which makes it a blocking one, here as well
	_, _, err = r.filler.WriteMsgUnix([]byte{packetCRIU}, unix.UnixRights(fd), nil)
	return errors.Join(err, unix.SetNonblock(fd, true))
}

// Filled says why the tree's memory is not in place, nil if the Filler has said that all of it is. It does not wait: what the
// Filler said before Fill returned is known here.
func (r *Relay) Filled() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.filled {
		return nil
	}
	if r.closed {
		return errors.New("the tree's memory was not filled")
	}
	what, err := peek(r.filler)
	switch {
	case err == nil && what == packetFilled:
		r.filled = true
		return nil
	case errors.Is(err, unix.EAGAIN):
		return errors.New("the tree's memory has not been filled yet")
	}
	return errors.New("whoever was to fill the tree's memory has gone before it was filled")
}

// peek takes a packet of one byte that has come; unix.EAGAIN if there is none, 0 if the other end is closed.
func peek(c *net.UnixConn) (what byte, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	b := make([]byte, 1)
	failed := raw.Control(func(fd uintptr) { _, _, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT) })
	return b[0], errors.Join(failed, err)
}

// Close ends the conversation, when CRIU has ended.
// The error is always nil.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.listener.Close()
	r.filler.Close()
	if r.criu != nil { // it comes no more
		r.criu.Close()
	}
	<-r.done
	return nil
}

// listenIn binds a unix socket in an open directory, whose path may be longer than a socket's may, for root alone. What was left
// there under the name is replaced. The file is the caller's to remove (removeIn).
func listenIn(dir *os.File, name, network string) (*net.UnixListener, error) {
	removeIn(dir, name)
	path := within(dir, name)
	l, err := net.ListenUnix(network, &net.UnixAddr{Net: network, Name: path})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		removeIn(dir, name)
		return nil, err
	}
	return l, nil
}

func removeIn(dir *os.File, name string) {
	_ = unix.Unlinkat(int(dir.Fd()), name, 0) // a directory that has been removed has no socket either
}

func within(dir *os.File, name string) string {
	return filepath.Join(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), name)
}

// fromRoot fails unless the other end is root's.
func fromRoot(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	refused := fs.ErrPermission
	if err := raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && cred.Uid == 0 {
			refused = nil
		}
	}); err != nil {
		return err
	}
	return refused
}
