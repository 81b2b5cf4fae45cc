package link

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"drover/internal/errs"
	"drover/internal/pki"
)

// idleAfter is how long a Pool keeps a connection without channels.
const idleAfter = time.Minute

// settle is how long a connection of its own outlives its channel, so that the peer surely learns of the channel's end
// before it learns of the connection's, and does not take the one for a loss.
const settle = time.Second

// Option changes a Pool.
type Option func(*Pool)

// WithDial replaces TCP.
func WithDial(d DialFunc) Option { return func(p *Pool) { p.dial = d } }

// Pool keeps one connection to each host it is asked for, makes it anew after a loss, and closes it when it is idle. It
// may be used from many goroutines.
//
// A host is named by address and by what must answer there: "worker:alpha", "coordinator:c1", or "coordinator" for any of
// them. Errors are errs.Forbidden if either end does not trust the other, else errs.Unavailable if it cannot be reached.
type Pool struct {
	dial  DialFunc
	every time.Duration
	ctx   context.Context // ends with Close
	end   context.CancelFunc

	mu      sync.Mutex
	cred    Credentials
	places  map[place]*pooled
	clients map[place]*http.Client
	running sync.WaitGroup
}

type place struct{ address, host string }

// pooled is a connection that is being made or has been.
type pooled struct {
	made     chan struct{} // closed when client or err is set
	client   *client
	err      error
	channels int         // open or being opened
	idle     *time.Timer // runs while there are none
}

// NewPool makes a pool for a daemon.
func NewPool(id *pki.Identity, options ...Option) *Pool { return NewPoolFor(AsDaemon(id), options...) }

// NewPoolFor makes a pool for whoever the credentials are.
func NewPoolFor(cred Credentials, options ...Option) *Pool {
	p := &Pool{cred: cred, dial: DialTCP, every: DefaultKeepAlive, places: map[place]*pooled{}, clients: map[place]*http.Client{}}
	p.ctx, p.end = context.WithCancel(context.Background())
	for _, o := range options {
		o(p)
	}
	return p
}

// Become has every channel that is opened from now on be on a connection that shows that identity. Those that are open keep theirs,
// which ends with the last of them.
func (p *Pool) Become(id *pki.Identity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cred = AsDaemon(id)
	for at, c := range p.places {
		delete(p.places, at)
		if c.channels == 0 {
			go c.hangUp()
		}
	}
	for _, c := range p.clients {
		c.CloseIdleConnections()
	}
}

// hangUp closes a connection once it has been made.
func (c *pooled) hangUp() {
	if <-c.made; c.err == nil {
		c.client.conn.Close()
	}
}

func (p *Pool) credentials() Credentials {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cred
}

// Open opens a channel to a host, on the connection that the pool has or makes.
func (p *Pool) Open(ctx context.Context, address, host, channelType string) (net.Conn, error) {
	at := place{address, host}
	for {
		c, fresh, err := p.get(ctx, at)
		if err != nil {
			return nil, err
		}
		conn, err := c.client.open(ctx, channelType, func() { p.put(at, c) })
		if err == nil {
			return conn, nil
		}
		if refused := openError(err, c.client.peer, channelType); refused != nil {
			return nil, refused
		}
		p.forget(at, c)
		if fresh {
			return nil, errs.New(errs.Unavailable, "open %s to %s at %s: %w", channelType, host, address, err)
		}
		// The connection has died since it was last used: once more on a new one.
	}
}

// OpenApart opens a channel on a connection of its own, which ends with it: what flows there delays nothing else, and
// several of them are not bound by one channel's window. It shows those credentials, not the pool's.
func (p *Pool) OpenApart(ctx context.Context, cred Credentials, address, host, channelType string) (net.Conn, error) {
	c, err := connect(ctx, p.dial, cred, address, host, p.every)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(p.ctx, func() { c.conn.Close() })
	conn, err := c.open(ctx, channelType, func() {
		stop()
		time.AfterFunc(settle, func() { c.conn.Close() })
	})
	if err == nil {
		return conn, nil
	}
	c.conn.Close()
	if refused := openError(err, c.peer, channelType); refused != nil {
		return nil, refused
	}
	return nil, errs.New(errs.Unavailable, "open %s to %s at %s: %w", channelType, host, address, err)
}

// get waits for the place's connection, counting one channel on it. fresh says that this call has made it.
func (p *Pool) get(ctx context.Context, at place) (_ *pooled, fresh bool, _ error) {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return nil, false, errs.New(errs.Unavailable, "reach %s at %s: %w", at.host, at.address, net.ErrClosed)
	}
	c := p.places[at]
	if c == nil {
		c, fresh = &pooled{made: make(chan struct{})}, true
		p.places[at] = c
		p.running.Go(func() { p.keep(at, c) })
	}
	c.channels++
	if c.idle != nil {
		c.idle.Stop()
		c.idle = nil
	}
	p.mu.Unlock()
	select {
	case <-c.made:
		if c.err != nil {
			return nil, fresh, c.err
		}
		return c, fresh, nil
	case <-ctx.Done():
		p.put(at, c)
		return nil, fresh, ctx.Err()
	}
}

// keep makes a connection and waits for its end. Several callers may wait for it, so that no caller's ctx ends it.
func (p *Pool) keep(at place, c *pooled) {
	c.client, c.err = connect(p.ctx, p.dial, p.credentials(), at.address, at.host, p.every)
	close(c.made)
	if c.err == nil {
		select {
		case <-c.client.ended:
		case <-p.ctx.Done():
			c.client.conn.Close()
			<-c.client.ended
		}
	}
	p.forget(at, c)
}

// put takes back a channel's count.
func (p *Pool) put(at place, c *pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.channels--
	if c.channels > 0 || p.ctx.Err() != nil {
		return
	}
	if p.places[at] != c { // another one has taken its place
		go c.hangUp()
		return
	}
	c.idle = time.AfterFunc(idleAfter, func() {
		p.mu.Lock()
		idle := c.channels == 0
		if idle && p.places[at] == c {
			delete(p.places, at)
		}
		p.mu.Unlock()
		if !idle {
			return
		}
		c.hangUp()
	})
}

// forget makes the next caller make a new connection.
func (p *Pool) forget(at place, c *pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.places[at] == c {
		delete(p.places, at)
	}
	if c.idle != nil {
		c.idle.Stop()
	}
}

// Close closes every connection and returns when they have ended.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.end()
	for _, c := range p.clients {
		c.CloseIdleConnections()
	}
	p.mu.Unlock()
	p.running.Wait()
	return nil
}
