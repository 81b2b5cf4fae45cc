package lazy

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
)

// The conversation has three parts. CRIU connects to criuSocket in its working directory and sends every process's pid and
// userfaultfd (criu/uffd.c). The engine, which listens there, passes that connection on to the Filler, which listens on Socket,
// and keeps a copy: CRIU says a last word when the tree is released, and kills the tree if nobody has the other end then. The
// Filler hands copies of the userfaultfds to the engine and says that it vouches for the memory; without that word the engine
// commits nothing. Its next word is that all is in place. If it goes without having said that, a tree that was released is killed.
const (
	// Socket is the name in the images' directory under which a Filler listens.
	Socket = "fill.socket"

	criuSocket = "lazy-pages.socket" // LAZY_PAGES_SOCK_NAME in criu/uffd.c
)

// The packets between engine and Filler begin with one of these.
const (
	packetCRIU    = 'C' // engine: with CRIU's connection beside it
	packetRebuilt = 'R' // engine: the restore is held: every mapping stands where it belongs
	packetRuns    = 'G' // engine: the tree has been released, or what came of that is known
	packetHeld    = 'U' // Filler: with a userfaultfd beside it, to be held until all is in place
	packetVouched = 'V' // Filler: every page is here, and every userfaultfd has been handed over
	packetFilled  = 'F' // Filler: all is in place; the engine lets go of the userfaultfds and hangs up
)

// Relay is the engine's end: it connects one restore's CRIU with the Filler that listens in the images' directory, and guards the
// tree against the Filler's death.
type Relay struct {
	images   *os.File
	kill     func() error
	filler   *net.UnixConn
	listener *net.UnixListener
	done     chan struct{} // closed when nobody listens for CRIU any more
	over     chan struct{} // closed when the Filler has been heard to its end

	mu       sync.Mutex
	criu     *net.UnixConn // the copy that CRIU's last word goes to
	held     []*os.File    // userfaultfds, until all is in place
	vouched  bool
	released bool // the tree may run
	filled   bool
	lost     error // why it will not be filled
	closed   bool
}

// NewRelay connects to the Filler and waits for CRIU in the background. images stays the caller's and must be open until Close.
// kill ends every process of the tree and returns nil when none is left; it is called when a Filler is lost that a released tree
// still needs, again and again until it succeeds. errs.Invalid if no Filler listens there.
func NewRelay(images *os.File, kill func() error) (*Relay, error) {
	filler, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: within(images, Socket)})
	if err != nil {
		return nil, errs.New(errs.Invalid, "nobody listens in %s to fill the tree's memory: %w", images.Name(), err)
	}
	r := &Relay{images: images, kill: kill, filler: filler, done: make(chan struct{}), over: make(chan struct{})}
	if err := fromRoot(filler); err != nil {
		filler.Close()
		return nil, err
	}
	if r.listener, err = listenIn(images, criuSocket, "unix"); err != nil {
		filler.Close()
		return nil, fmt.Errorf("listen for CRIU: %w", err)
	}
	go r.introduce(r.listener)
	go r.attend()
	return r, nil
}

// introduce passes the connection of CRIU on to the Filler.
func (r *Relay) introduce(l *net.UnixListener) {
	defer close(r.done)
	c := r.meet(l)
	if c == nil {
		return
	}
	if r.pass(c) != nil {
		c.Close() // CRIU gives up
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

// attend hears the Filler to its end.
func (r *Relay) attend() {
	defer close(r.over)
	for {
		packet, files, err := receivePacket(r.filler)
		r.mu.Lock()
		r.held = append(r.held, files...)
		switch {
		case err != nil || len(packet) == 0:
			r.mu.Unlock()
			r.desert()
			return
		case packet[0] == packetVouched:
			r.vouched = true
		case packet[0] == packetFilled:
			r.filled = true
			r.letGo()
			r.mu.Unlock()
			r.filler.Close()
			return
		}
		r.mu.Unlock()
	}
}

// letGo closes the userfaultfds. The caller holds mu.
func (r *Relay) letGo() {
	for _, f := range r.held {
		f.Close()
	}
	r.held = nil
}

// desert does what the loss of the Filler demands: a tree that may run is killed while whoever asks for a page still waits for it.
// Before the release CRIU's connection is read in its place: else processes would wait for ever for userfaultfds that are still on
// the way, and the restore would not come to its hold.
func (r *Relay) desert() {
	r.mu.Lock()
	r.lost = errors.New("whoever was to fill the tree's memory has gone before it was filled")
	released, criu := r.released, r.criu
	r.mu.Unlock()
	for released && r.kill() != nil {
		<-time.After(killAgain) // nothing else may be done
	}
	r.mu.Lock()
	r.letGo()
	r.mu.Unlock()
	r.filler.Close()
	if !released && criu != nil {
		go discard(criu)
	}
}

// Rebuilt tells the Filler that the restore is held, from when on it may put pages in place: before, CRIU still moves mappings about.
func (r *Relay) Rebuilt() error {
	if _, err := r.filler.Write([]byte{packetRebuilt}); err != nil {
		return fmt.Errorf("tell who fills the memory: %w", err)
	}
	return nil
}

// Runs tells the Filler that CRIU has let go of the tree, whatever became of it: from now on all else is put in place. Before, the Filler
// would stand in CRIU's way, which still changes the processes' mappings.
func (r *Relay) Runs() {
	_, _ = r.filler.Write([]byte{packetRuns}) // a Filler that is gone has done what it could
}

// Release says why the tree must not run, nil if it may: its memory is in place, or the Filler has vouched for it. From then on the
// tree is killed if the Filler is lost. It does not wait. An error that is engine.ErrLost's is final.
func (r *Relay) Release() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.filled:
	case r.lost != nil:
		return fmt.Errorf("%w: %w", r.lost, engine.ErrLost)
	case r.closed:
		return errors.New("the tree's memory was not filled")
	case !r.vouched:
		return errors.New("nobody vouches for the tree's memory yet")
	}
	r.released = true
	return nil
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

// Close ends the conversation with CRIU, which has ended, and with a Filler unless a released tree still needs it.
// The error is always nil.
func (r *Relay) Close() error {
	r.listener.Close()
	r.mu.Lock()
	r.closed = true
	released := r.released
	if r.criu != nil { // it comes no more
		r.criu.Close()
	}
	r.mu.Unlock()
	if !released {
		r.filler.Close()
		<-r.over
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
