package link

import (
	"context"
	"net"
	"net/http"
	"time"

	"drover/internal/pki"
)

// HTTP is a client whose requests go to the host over ChannelAPI, whatever host their URLs name. Calls with the same
// arguments share a client.
func (p *Pool) HTTP(address, host string) *http.Client {
	at := place{address, host}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.clients[at]; c != nil {
		return c
	}
	c := &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return p.Open(ctx, address, host, ChannelAPI)
			},
			MaxIdleConnsPerHost: 8,
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true,
		},
		// There is nowhere else to go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	p.clients[at] = c
	return c
}

type peerKey struct{}

// ConnContext is for http.Server: it lets handlers ask PeerFrom.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if peer, ok := PeerOf(c); ok {
		return WithPeer(ctx, peer)
	}
	return ctx
}

// WithPeer says in ctx on whose behalf a call is made.
func WithPeer(ctx context.Context, peer pki.Principal) context.Context {
	return context.WithValue(ctx, peerKey{}, peer)
}

// PeerFrom is who made the request.
func PeerFrom(ctx context.Context) (pki.Principal, bool) {
	peer, ok := ctx.Value(peerKey{}).(pki.Principal)
	return peer, ok
}
