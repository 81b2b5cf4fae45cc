package consensus

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"drover/internal/errs"
)

// Peer is a coordinator as the others reach it.
type Peer struct {
	Name    string
	Address string // host:port
}

// Raft knows an address only, and a link needs the name too, to check the peer's certificate: so Raft's address is both.
func (p Peer) raft() raft.ServerAddress { return raft.ServerAddress(p.Name + "@" + p.Address) }

func peerOf(a raft.ServerAddress) Peer {
	name, address, _ := strings.Cut(string(a), "@")
	return Peer{name, address}
}

// streams carries Raft's messages over links. Raft's transport does not close the connections it has accepted, nor all of
// those that it has made: streams remembers both.
type streams struct {
	net.Listener
	dial func(ctx context.Context, p Peer) (net.Conn, error)

	mu     sync.Mutex
	open   map[*stream]struct{}
	closed bool
}

func newStreams(l net.Listener, dial func(ctx context.Context, p Peer) (net.Conn, error)) *streams {
	return &streams{Listener: l, dial: dial, open: map[*stream]struct{}{}}
}

func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	p := peerOf(address)
	conn, err := s.dial(ctx, p)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "reach coordinator %s at %s: %w", p.Name, p.Address, err)
	}
	return s.keep(conn)
}

func (s *streams) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return s.keep(conn)
}

func (s *streams) keep(conn net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	kept := &stream{conn, s}
	s.open[kept] = struct{}{}
	return kept, nil
}

// Close closes the listener and every connection.
func (s *streams) Close() error {
	s.mu.Lock()
	s.closed = true
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
	return s.Listener.Close()
}

// stream is a connection that is forgotten when it is closed.
type stream struct {
	net.Conn
	of *streams
}

func (c *stream) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
