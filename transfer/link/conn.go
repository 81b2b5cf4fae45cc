package link

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/pki"
)

const (
	// chunk is the size of a Conn's four buffers, two each way: two of SSH's largest packets.
	chunk = 64 << 10
	// linger is how long a closed Conn goes on sending what Write had accepted.
	linger = 5 * time.Second
)

// Conn is one SSH channel as a net.Conn. SSH channels know no deadlines; here a goroutine each way moves the bytes through
// small buffers, so that Read and Write can be given up at any moment without losing or repeating a byte.
//
// Write returns when its bytes are buffered; Close sends what is buffered and does not wait. A channel whose connection is
// lost ends in io.ErrUnexpectedEOF, one that the peer closed in io.EOF.
type Conn struct {
	ch     ssh.Channel
	under  *watched  // the connection that the channel is on
	who    admission // who is at the other end
	closed chan struct{}
	close  sync.Once
	over   chan struct{} // closed when the peer has closed the channel or the connection is lost
	torn   bool          // it was the latter; valid once over is closed

	readBy, writeBy     *deadline
	readTurn, writeTurn chan struct{} // held by the one Read, the one Write under way

	in, inFree   chan []byte
	rest, buffer []byte // of the buffer being read: what is left, and all of it
	readErr      error  // valid once in is closed

	out, outFree chan []byte
	outDone      chan struct{} // closed when nothing can be written any more
}

// newConn takes the channel over. done is called once both ends have closed it, or its connection is lost.
func newConn(ch ssh.Channel, reqs <-chan *ssh.Request, under *watched, who admission, done func()) *Conn {
	c := &Conn{
		ch: ch, under: under, who: who,
		closed: make(chan struct{}), over: make(chan struct{}),
		readBy: newDeadline(), writeBy: newDeadline(),
		readTurn: make(chan struct{}, 1), writeTurn: make(chan struct{}, 1),
		in: make(chan []byte, 2), inFree: make(chan []byte, 2),
		out: make(chan []byte, 2), outFree: make(chan []byte, 2),
		outDone: make(chan struct{}),
	}
	for range cap(c.inFree) {
		c.inFree <- nil // made when first used: most channels are small talk
		c.outFree <- nil
	}
	go c.receive()
	go c.send()
	go func() {
		ssh.DiscardRequests(reqs) // until the peer's close, after which nothing sent is under way any more
		c.torn = under.lost.Load()
		close(c.over)
		<-c.outDone
		done()
	}()
	return c
}

func (c *Conn) receive() {
	defer close(c.in)
	for {
		var b []byte
		select {
		case b = <-c.inFree:
		case <-c.closed:
			c.readErr = net.ErrClosed
			return
		}
		if b == nil {
			b = make([]byte, chunk)
		}
		n, err := c.ch.Read(b)
		if n > 0 {
			c.in <- b[:n] // there are no more buffers than in has room for
		}
		if err != nil {
			c.readErr = c.ending(err)
			return
		}
	}
}

// ending tells the end that the peer said from one that the loss of the connection brought: to SSH both are io.EOF.
func (c *Conn) ending(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	select {
	case <-c.over:
	case <-c.closed:
		return net.ErrClosed
	}
	if c.torn {
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

// send writes what Write has accepted, until the channel is over or this side closes it.
func (c *Conn) send() {
	defer close(c.outDone)
	defer c.ch.Close()
	for {
		select {
		case b := <-c.out:
			if _, err := c.ch.Write(b); err != nil {
				return
			}
			c.outFree <- b[:cap(b)]
		case <-c.over:
			return
		case <-c.closed:
			for {
				select {
				case b := <-c.out:
					if _, err := c.ch.Write(b); err != nil {
						return
					}
				default:
					return
				}
			}
		}
	}
}

func (c *Conn) Read(p []byte) (int, error) {
	late := c.readBy.wait()
	if isClosed(late) {
		return 0, os.ErrDeadlineExceeded
	}
	select {
	case c.readTurn <- struct{}{}:
		defer func() { <-c.readTurn }()
	case <-late:
		return 0, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, net.ErrClosed
	}
	if len(c.rest) == 0 {
		select {
		case b, ok := <-c.in:
			if !ok {
				return 0, c.readErr
			}
			c.rest, c.buffer = b, b[:cap(b)]
		case <-late:
			return 0, os.ErrDeadlineExceeded
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.inFree <- c.buffer
	}
	return n, nil
}

func (c *Conn) Write(p []byte) (n int, err error) {
	late := c.writeBy.wait()
	if isClosed(late) {
		return 0, os.ErrDeadlineExceeded
	}
	select {
	case c.writeTurn <- struct{}{}:
		defer func() { <-c.writeTurn }()
	case <-late:
		return 0, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, net.ErrClosed
	}
	for len(p) > 0 {
		select {
		case <-c.closed:
			return n, net.ErrClosed
		case <-c.outDone:
			return n, io.ErrClosedPipe
		default:
		}
		select {
		case b := <-c.outFree:
			if b == nil {
				b = make([]byte, chunk)
			}
			m := copy(b, p)
			c.out <- b[:m] // there are no more buffers than out has room for
			n, p = n+m, p[m:]
		case <-late:
			return n, os.ErrDeadlineExceeded
		case <-c.closed:
			return n, net.ErrClosed
		case <-c.outDone:
			return n, io.ErrClosedPipe
		}
	}
	return n, nil
}

// Close ends the channel both ways.
func (c *Conn) Close() error {
	c.close.Do(func() {
		close(c.closed)
		// A peer that does not read must not keep the sending goroutine: closing the channel frees it.
		t := time.AfterFunc(linger, func() { c.ch.Close() })
		go func() {
			<-c.outDone
			t.Stop()
		}()
	})
	return nil
}

// SetDeadline sets both deadlines. They apply to calls that begin later and to those under way.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

// SetReadDeadline ends reads at t.
func (c *Conn) SetReadDeadline(t time.Time) error { c.readBy.set(t); return nil }

// SetWriteDeadline ends writes at t.
func (c *Conn) SetWriteDeadline(t time.Time) error { c.writeBy.set(t); return nil }

// LocalAddr is that of the connection below.
func (c *Conn) LocalAddr() net.Addr { return c.under.LocalAddr() }

// RemoteAddr is that of the connection below.
func (c *Conn) RemoteAddr() net.Addr { return c.under.RemoteAddr() }

// unwrap finds the Conn in or below c; wrappers show what they wrap by a method NetConn, as tls.Conn does.
func unwrap(c net.Conn) (*Conn, bool) {
	for {
		switch v := c.(type) {
		case *Conn:
			return v, true
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
		default:
			return nil, false
		}
	}
}

// PeerOf says who is at the other end of a Conn: whose key the client showed, or which host answered.
func PeerOf(c net.Conn) (pki.Principal, bool) {
	v, ok := unwrap(c)
	if !ok {
		return pki.Principal{}, false
	}
	return v.who.peer, true
}

// TransferOf is what the certificate that the client showed is bound to; false if it is not a transfer's.
func TransferOf(c net.Conn) (pki.Transfer, bool) {
	if v, ok := unwrap(c); ok && v.who.transfer != nil {
		return *v.who.transfer, true
	}
	return pki.Transfer{}, false
}
