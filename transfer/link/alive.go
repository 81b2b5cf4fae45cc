package link

import (
	"bufio"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// DefaultKeepAlive is how often each end sends a sign of life.
	DefaultKeepAlive = time.Second
	// silences is how many of them may be missing before the peer counts as dead.
	silences = 5

	keepAliveRequest = "keepalive@drover"
)

// readAhead is how much is read from a connection at once: SSH itself asks for 4 KiB, then for the rest of a packet.
const readAhead = 64 << 10

// watched is the connection below SSH. It remembers when the peer was last heard and whether the connection has ended.
type watched struct {
	net.Conn
	ahead *bufio.Reader // of heard
	began time.Time
	heard atomic.Int64 // nanoseconds since began, on the monotonic clock
	lost  atomic.Bool
}

func watch(c net.Conn) *watched {
	w := &watched{Conn: c, began: time.Now()}
	w.ahead = bufio.NewReaderSize(below{w}, readAhead)
	return w
}

// Read is called by one goroutine at a time, SSH's.
func (w *watched) Read(b []byte) (int, error) { return w.ahead.Read(b) }

// below is what a watched connection reads ahead from.
type below struct{ *watched }

func (w below) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.heard.Store(int64(time.Since(w.began)))
	}
	if err != nil {
		w.lost.Store(true)
	}
	return n, err
}

func (w *watched) Close() error {
	w.lost.Store(true)
	return w.Conn.Close()
}

func (w *watched) silence() time.Duration { return time.Since(w.began) - time.Duration(w.heard.Load()) }

// keepAlive closes the connection once the peer has been silent for too long, and sees to it that this end is not. Anything
// received counts as a sign of life, so that a link full of pages is not taken for a dead one. It returns when done is closed.
func keepAlive(conn ssh.Conn, w *watched, every time.Duration, done <-chan struct{}, dead func(silent time.Duration)) {
	beat := make(chan struct{}, 1)
	defer close(beat)
	go func() { // apart, because a write to a dead peer blocks
		for range beat {
			if _, _, err := conn.SendRequest(keepAliveRequest, false, nil); err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if silent := w.silence(); silent > silences*every {
			dead(silent)
			w.Close()
			return
		}
		select {
		case beat <- struct{}{}:
		default:
		}
	}
}
