package transfertest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// buffered is how much one direction of a connection holds before a writer waits, unless the network says otherwise: about a
// TCP socket's.
const buffered = 256 << 10

// stream is one direction of a connection.
type stream struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	network *Network
	chunks  []chunk
	size    int
	cut     bool // nothing arrives
	broken  bool // reset: both ends get an error
	ended   bool // the writer has closed: EOF after the last chunk
	deaf    bool // the reader has closed
	readBy  time.Time
	writeBy time.Time
}

type chunk struct {
	data []byte
	due  time.Time
}

func newStream(n *Network) *stream { return &stream{network: n, changed: make(chan struct{})} }

// set changes the stream and wakes whoever waits for it.
func (s *stream) set(change func(*stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	s.wake()
}

func (s *stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait is called with s.mu held, and returns with it held after a change or at one of the times, zero ones excepted.
func (s *stream) wait(until ...time.Time) {
	changed := s.changed
	var timer <-chan time.Time
	var first time.Time
	for _, t := range until {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if !first.IsZero() {
		t := time.NewTimer(time.Until(first))
		defer t.Stop()
		timer = t.C
	}
	s.mu.Unlock()
	select {
	case <-changed:
	case <-timer:
	}
	s.mu.Lock()
}

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var due time.Time
		switch {
		case s.deaf:
			return 0, net.ErrClosed
		case passed(s.readBy):
			return 0, os.ErrDeadlineExceeded
		case s.broken:
			return 0, fmt.Errorf("read: %w", syscall.ECONNRESET)
		case s.cut:
		case len(s.chunks) > 0 && !time.Now().Before(s.chunks[0].due):
			n := copy(p, s.chunks[0].data)
			if s.chunks[0].data = s.chunks[0].data[n:]; len(s.chunks[0].data) == 0 {
				s.chunks = s.chunks[1:]
			}
			s.size -= n
			s.wake()
			return n, nil
		case len(s.chunks) > 0:
			due = s.chunks[0].due
		case s.ended:
			return 0, io.EOF
		}
		s.wait(s.readBy, due)
	}
}

func (s *stream) write(p []byte, delay time.Duration, room int) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.ended:
			return n, net.ErrClosed
		case passed(s.writeBy):
			return n, os.ErrDeadlineExceeded
		case s.broken || s.deaf && !s.cut:
			return n, fmt.Errorf("write: %w", syscall.EPIPE)
		case len(p) == 0:
			return n, nil
		case s.size < room:
			m := min(len(p), room-s.size)
			s.chunks = append(s.chunks, chunk{append([]byte(nil), p[:m]...), time.Now().Add(delay)})
			s.size += m
			n, p = n+m, p[m:]
			s.wake()
			continue
		}
		s.wait(s.writeBy)
	}
}

// conn is one end of a connection.
type conn struct {
	network       *Network
	link          pair
	in, out       *stream
	local, remote addr
	other         *conn
	closed        bool // under the network's lock
}

func (c *conn) Read(p []byte) (int, error) { return c.in.read(p) }

func (c *conn) Write(p []byte) (int, error) {
	c.network.mu.Lock()
	delay, room := c.network.delay, c.network.room
	c.network.mu.Unlock()
	return c.out.write(p, delay, room)
}

func (c *conn) Close() error {
	c.in.set(func(s *stream) { s.deaf, s.chunks, s.size = true, nil, 0 })
	c.out.set(func(s *stream) { s.ended = true })
	c.network.forget(c)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.set(func(s *stream) { s.readBy = t })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.set(func(s *stream) { s.writeBy = t })
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

var _ net.Conn = (*conn)(nil)
