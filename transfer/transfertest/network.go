package transfertest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Network joins hosts by connections in memory. Addresses are "host:port" with names for hosts. A cut loses nothing, as TCP
// does not: bytes and calls wait for the heal, or for whoever gives up first.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	conns     map[*conn]struct{} // the callers' ends of those not closed at both
	cut       map[pair]bool
	delay     time.Duration
	room      int           // bytes that each direction of a connection holds
	changed   chan struct{} // closed and replaced when a link or a listener comes or goes
}

// pair is a link, its hosts in order.
type pair struct{ a, b string }

func link(a, b string) pair {
	if b < a {
		a, b = b, a
	}
	return pair{a, b}
}

// NewNetwork makes a network without delay.
func NewNetwork() *Network {
	return &Network{listeners: map[string]*listener{}, conns: map[*conn]struct{}{}, cut: map[pair]bool{}, room: buffered, changed: make(chan struct{})}
}

func (n *Network) wake() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Delay sets how long a byte is under way, one way, for what is written from now on.
func (n *Network) Delay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// Room sets how many bytes each direction of a connection holds, those under way included, before a writer waits.
func (n *Network) Room(bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.room = bytes
}

// Cut stops everything between two hosts, in both directions, until Heal.
func (n *Network) Cut(a, b string) { n.setCut(a, b, true) }

// Heal lets what waited go on.
func (n *Network) Heal(a, b string) { n.setCut(a, b, false) }

func (n *Network) setCut(a, b string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := link(a, b)
	n.cut[l] = cut
	for c := range n.conns {
		if c.link == l {
			c.in.set(func(s *stream) { s.cut = cut })
			c.out.set(func(s *stream) { s.cut = cut })
		}
	}
	n.wake()
}

// Reset breaks every connection between two hosts, as when a router forgets them.
func (n *Network) Reset(a, b string) { n.reset(func(c *conn) bool { return c.link == link(a, b) }) }

// Kill breaks every connection of a host and closes its listeners, as when its power goes.
func (n *Network) Kill(host string) {
	n.mu.Lock()
	var gone []*listener
	for address, l := range n.listeners {
		if hostOf(address) == host {
			delete(n.listeners, address)
			gone = append(gone, l)
		}
	}
	n.mu.Unlock()
	for _, l := range gone {
		l.shut()
	}
	n.reset(func(c *conn) bool { return c.link.a == host || c.link.b == host })
}

func (n *Network) reset(match func(*conn) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if match(c) {
			c.in.set(func(s *stream) { s.broken = true })
			c.out.set(func(s *stream) { s.broken = true })
		}
	}
}

// Listen opens "host:port".
func (n *Network) Listen(address string) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, fmt.Errorf("listen at %s: the address is in use", address)
	}
	l := &listener{network: n, address: addr(address), calls: make(chan *conn, 128), closed: make(chan struct{})}
	n.listeners[address] = l
	n.wake()
	return l, nil
}

// From gives a host's way to dial. Nobody listening is an error at once; a cut link makes the call wait.
func (n *Network) From(host string) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		at := link(host, hostOf(address))
		for {
			n.mu.Lock()
			changed := n.changed
			if !n.cut[at] {
				c, err := n.connect(host, address)
				n.mu.Unlock()
				return c, err
			}
			n.mu.Unlock()
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, fmt.Errorf("dial %s: %w", address, ctx.Err())
			}
		}
	}
}

// connect is called with n.mu held.
func (n *Network) connect(from, address string) (net.Conn, error) {
	l := n.listeners[address]
	if l == nil {
		return nil, fmt.Errorf("dial %s: connection refused", address)
	}
	near, far := n.pair(from, address)
	select {
	case l.calls <- far:
	default:
		return nil, fmt.Errorf("dial %s: too many calls wait", address)
	}
	n.conns[near] = struct{}{}
	return near, nil
}

// pair makes both ends of a connection.
func (n *Network) pair(from, address string) (near, far *conn) {
	at := link(from, hostOf(address))
	there, back := newStream(n), newStream(n)
	near = &conn{network: n, link: at, in: back, out: there, local: addr(from + ":0"), remote: addr(address)}
	far = &conn{network: n, link: at, in: there, out: back, local: addr(address), remote: addr(from + ":0")}
	near.other, far.other = far, near
	return near, far
}

// forget is called when one end has closed. The connection is known until both have: the other end may wait for a heal.
func (n *Network) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed = true; c.other.closed {
		delete(n.conns, c)
		delete(n.conns, c.other)
	}
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }

type listener struct {
	network *Network
	address addr
	calls   chan *conn
	closed  chan struct{}
	once    sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.calls:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("accept at %s: %w", l.address, net.ErrClosed)
	}
}

func (l *listener) shut() {
	l.once.Do(func() { close(l.closed) })
	for {
		select {
		case c := <-l.calls:
			c.Close()
		default:
			return
		}
	}
}

func (l *listener) Close() error {
	l.network.mu.Lock()
	if l.network.listeners[string(l.address)] == l {
		delete(l.network.listeners, string(l.address))
	}
	l.network.mu.Unlock()
	l.shut()
	return nil
}

func (l *listener) Addr() net.Addr { return l.address }
