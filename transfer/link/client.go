package link

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
	"drover/internal/pki"
)

// DialFunc makes the connection that SSH runs on. Tests put connections in memory here.
type DialFunc func(ctx context.Context, address string) (net.Conn, error)

// DialTCP is the usual DialFunc.
func DialTCP(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// handshakeTimeout bounds making a connection, TCP included.
const handshakeTimeout = 10 * time.Second

// client is one authenticated connection to a host.
type client struct {
	conn  ssh.Conn
	under *watched
	peer  pki.Principal // the host that answered
	ended chan struct{} // closed when the connection is lost or closed
}

// connect makes a connection to address and makes sure that host answers there: a principal as in "worker:alpha", or a
// role alone, "coordinator", if any host of it will do.
func connect(ctx context.Context, dial DialFunc, cred Credentials, address, host string, every time.Duration) (*client, error) {
	if cred.err != nil {
		return nil, cred.err
	}
	if err := validHost(host); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := dial(ctx, address)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "reach %s at %s: %w", host, address, err)
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	under := watch(raw)
	var peer pki.Principal
	var distrust error
	conn, channels, requests, err := ssh.NewClientConn(under, address, &ssh.ClientConfig{
		Config:            algorithms(),
		ClientVersion:     clientVersion,
		User:              cred.user,
		Auth:              cred.auth,
		HostKeyAlgorithms: []string{ssh.CertAlgoED25519v01},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			peer, distrust = identify(key, cred, host)
			return distrust
		},
	})
	if !stop() && err == nil {
		conn.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		return nil, handshakeError(ctx, err, distrust, host, address)
	}
	c := &client{conn: conn, under: under, peer: peer, ended: make(chan struct{})}
	go ssh.DiscardRequests(requests)
	go func() {
		for ch := range channels {
			_ = ch.Reject(ssh.Prohibited, "a client serves nothing")
		}
		conn.Close()
		close(c.ended)
	}()
	go keepAlive(conn, under, every, c.ended, func(time.Duration) {})
	return c, nil
}

func validHost(host string) error {
	if host == pki.RoleWorker || host == pki.RoleCoordinator {
		return nil
	}
	if _, err := pki.ParsePrincipal(host); err != nil {
		return errs.New(errs.Invalid, "host %q: %w", host, err).WithNext("name a host with its role, as in worker:alpha")
	}
	return nil
}

// identify says which host a certificate proves.
func identify(key ssh.PublicKey, cred Credentials, want string) (pki.Principal, error) {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return pki.Principal{}, errs.New(errs.Forbidden, "it shows no certificate")
	}
	if !cred.trusted(cert.SignatureKey) {
		return pki.Principal{}, errs.New(errs.Forbidden, "its certificate is of another cluster (authority %s)", ssh.FingerprintSHA256(cert.SignatureKey)).
			WithNext("if the cluster has changed its key, put the new authority's line, which drover status shows, into client.yaml")
	}
	if err := pki.CheckHost(cert, pki.Trust{cert.SignatureKey}, want); err != nil {
		return pki.Principal{}, err
	}
	for _, name := range cert.ValidPrincipals {
		if name == want || strings.HasPrefix(name, want+":") {
			return pki.ParsePrincipal(name)
		}
	}
	return pki.Principal{}, errs.New(errs.Forbidden, "it is not %s", want)
}

func handshakeError(ctx context.Context, err, distrust error, host, address string) error {
	switch {
	case distrust != nil:
		return errs.New(errs.Forbidden, "%s at %s cannot be trusted: %w", host, address, distrust)
	case ctx.Err() != nil:
		return errs.New(errs.Unavailable, "reach %s at %s: no answer in time: %w", host, address, ctx.Err())
	case strings.Contains(err.Error(), "unable to authenticate"): // x/crypto/ssh has no error of its own for it
		return errs.New(errs.Forbidden, "%s at %s does not know this key or certificate: %w", host, address, err).
			WithNext("a person's key is listed by an admin; a daemon joins with a token; a certificate may have expired")
	}
	return errs.New(errs.Unavailable, "reach %s at %s: %w", host, address, err)
}

// open opens a channel. When ctx ends first, a channel that is opened nevertheless is closed.
func (c *client) open(ctx context.Context, channelType string, done func()) (*Conn, error) {
	type opened struct {
		conn *Conn
		err  error
	}
	result := make(chan opened, 1)
	go func() {
		ch, requests, err := c.conn.OpenChannel(channelType, nil)
		if err != nil {
			done()
			result <- opened{err: err}
			return
		}
		result <- opened{conn: newConn(ch, requests, c.under, admission{peer: c.peer}, done)}
	}()
	select {
	case r := <-result:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-result; r.conn != nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// openError tells a refusal, which says something about the caller, from a connection that broke (nil).
func openError(err error, peer pki.Principal, channelType string) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var refused *ssh.OpenChannelError
	if !errors.As(err, &refused) {
		return nil
	}
	kind := errs.Unavailable
	if refused.Reason == ssh.Prohibited {
		kind = errs.Forbidden
	}
	return errs.New(kind, "%s refuses %s: %s", peer, channelType, quoteShort(refused.Message))
}
