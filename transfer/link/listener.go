package link

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"

	"drover/internal/pki"
)

// backlog is how many channels of one type may wait for Accept.
const backlog = 64

// listener hands out the channels of one type, from all connections.
type listener struct {
	server *Server
	kind   string
	allow  func(pki.Principal) bool
	room   chan struct{} // one for each channel that waits or is about to
	ready  chan *Conn
	closed chan struct{}
	close  sync.Once
}

// Listener is a net.Listener for channels of one type. A peer that allow refuses is told so; allow is called for each
// channel, from many goroutines. The conns it returns are *Conn: see PeerOf and TransferOf. A type has one listener at a time;
// a second one is a mistake in the program and panics. Once closed, its type is unknown again.
func (s *Server) Listener(channelType string, allow func(pki.Principal) bool) net.Listener {
	l := &listener{
		server: s, kind: channelType, allow: allow,
		room: make(chan struct{}, backlog), ready: make(chan *Conn, backlog), closed: make(chan struct{}),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listeners[channelType] != nil {
		panic("link: a second listener for " + channelType) //nolint:forbidigo // a mistake in the program, at its start
	}
	s.listeners[channelType] = l
	return l
}

func (s *Server) listenerOf(channelType string) *listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listeners[channelType]
}

func (s *Server) closeListeners() {
	s.mu.Lock()
	open := slices.Collect(maps.Values(s.listeners))
	s.mu.Unlock()
	for _, l := range open {
		l.Close()
	}
}

func (l *listener) reserve() bool {
	select {
	case l.room <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *listener) unreserve() { <-l.room }

// deliver never blocks: its place was reserved.
func (l *listener) deliver(c *Conn) {
	l.ready <- c
	select {
	case <-l.closed:
		l.drop()
	default:
	}
}

// Accept waits for the next channel.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed: // also when a channel waits
		return nil, l.gone()
	default:
	}
	select {
	case c := <-l.ready:
		l.unreserve()
		return c, nil
	case <-l.closed:
		return nil, l.gone()
	}
}

func (l *listener) gone() error { return fmt.Errorf("accept %s: %w", l.kind, net.ErrClosed) }

// Close refuses further channels and closes those that wait; those handed out live on.
func (l *listener) Close() error {
	l.close.Do(func() {
		l.server.mu.Lock()
		delete(l.server.listeners, l.kind)
		l.server.mu.Unlock()
		close(l.closed)
		l.drop()
	})
	return nil
}

func (l *listener) drop() {
	for {
		select {
		case c := <-l.ready:
			l.unreserve()
			c.Close()
		default:
			return
		}
	}
}

// Addr names the channel type: a channel has no address of its own.
func (l *listener) Addr() net.Addr { return addr(l.kind) }

type addr string

func (a addr) Network() string { return "ssh" }
func (a addr) String() string  { return string(a) }

// quoteShort makes a peer's text fit for a message.
func quoteShort(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return strconv.Quote(s)
}
