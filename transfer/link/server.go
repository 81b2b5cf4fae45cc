package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
	"drover/internal/pki"
)

// Options of a Server. The zero value admits certificates of the cluster only; callbacks are called from many goroutines.
type Options struct {
	// Keys says whose plain key this is; only principals of the roles operator and lapsed are taken. nil admits none.
	Keys func(ssh.PublicKey) (pki.Principal, bool)
	// Token says what the holder of a join token may become; only principals of the role join are taken. nil admits none.
	Token func(secret string) (pki.Principal, bool)
	// Transfers admits certificates of transfers, as principals of the role transfer: see TransferOf.
	Transfers bool
	// Removed says of a principal with a good certificate that it is not wanted any more.
	Removed func(pki.Principal) bool

	Log              *slog.Logger  // nil is slog.Default
	HandshakeTimeout time.Duration // 0 is 10 s
	KeepAlive        time.Duration // 0 is DefaultKeepAlive
	MaxHandshakes    int           // connections not yet authenticated, at once; 0 is 256, a quarter of them from one address
	MaxConns         int           // authenticated connections at once; 0 is 1024
	MaxChannels      int           // of one connection, at once; 0 is 128
}

func (o *Options) fill() {
	for _, d := range []struct {
		field *int
		value int
	}{{&o.MaxHandshakes, 256}, {&o.MaxConns, 1024}, {&o.MaxChannels, 128}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = 10 * time.Second
	}
	if o.KeepAlive <= 0 {
		o.KeepAlive = DefaultKeepAlive
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// Server admits peers and hands their channels to listeners.
type Server struct {
	options Options
	log     *slog.Logger
	doors   *doors

	mu        sync.Mutex
	identity  *pki.Identity
	listeners map[string]*listener
	sessions  map[*session]struct{}
}

// NewServer makes a server that proves itself with the identity's host certificate. Nothing is served before Serve.
func NewServer(identity *pki.Identity, options Options) *Server {
	options.fill()
	return &Server{
		identity:  identity,
		options:   options,
		log:       options.Log,
		doors:     newDoors(options.MaxHandshakes),
		listeners: map[string]*listener{},
		sessions:  map[*session]struct{}{},
	}
}

// Become has connections that are admitted from now on see that identity, and closes those that an authority has admitted which is
// trusted no more.
func (s *Server) Become(id *pki.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity = id
	for ses := range s.sessions {
		if by := ses.who.signedBy; by != nil && !id.Trust.Has(by) {
			ses.under.Close()
		}
	}
}

// me is who the server is.
func (s *Server) me() *pki.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// Serve admits connections from l until ctx is done, then closes l, every connection and every Listener and returns nil
// when all has ended. It is called once. It returns an error only if it cannot serve at all.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer s.closeListeners()
	defer l.Close()
	if err := s.me().Genuine(); err != nil { // who has expired is believed by nobody until it has renewed
		return err
	}
	if _, err := s.sshConfig(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var grumbled time.Time
	for {
		raw, err := accept(ctx, l, s.log)
		if err != nil {
			return err
		}
		if raw == nil {
			return nil
		}
		leave, crowded := s.doors.enter(raw.RemoteAddr(), func() { raw.Close() })
		if crowded && time.Since(grumbled) > time.Minute {
			grumbled = time.Now()
			s.log.Warn("too many connections wait to be authenticated; those that wait longest are closed", slog.String("newest", raw.RemoteAddr().String()))
		}
		all.Go(func() { s.serve(ctx, raw, leave) })
	}
}

// accept waits out what passes (no descriptors left, a peer gone before it was accepted). It returns nil, nil when ctx is done.
func accept(ctx context.Context, l net.Listener, log *slog.Logger) (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		raw, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				raw.Close()
			}
			return nil, nil
		case err == nil:
			return raw, nil
		case errors.Is(err, net.ErrClosed):
			return nil, errs.New(errs.Failed, "serve at %s: %w", l.Addr(), err)
		}
		log.Warn("cannot accept a connection", slog.Any("error", err), slog.Duration("retry_in", wait))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// serve lives as long as one connection.
func (s *Server) serve(ctx context.Context, raw net.Conn, leave func()) {
	defer leave()
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	_ = raw.SetDeadline(time.Now().Add(s.options.HandshakeTimeout)) // fails on a closed connection only: the next read says so
	config, err := s.sshConfig()
	if err != nil {
		s.log.Error("nobody can be served", slog.Any("error", err))
		return
	}
	under := watch(raw)
	conn, channels, requests, err := ssh.NewServerConn(under, config)
	if err != nil {
		s.log.Debug("a connection was not authenticated", slog.String("remote", raw.RemoteAddr().String()), slog.Any("error", err))
		return
	}
	leave()
	defer conn.Close()
	who, ok := conn.Permissions.ExtraData[admissionKey{}].(admission)
	if !ok {
		s.log.Error("a connection was authenticated without a principal", slog.String("remote", raw.RemoteAddr().String()))
		return
	}
	_ = raw.SetDeadline(time.Time{})
	ses := &session{server: s, who: who, conn: conn, under: under}
	if !s.enlist(ses) {
		s.log.Warn("too many connections", slog.String("peer", who.peer.String()), slog.Int("limit", s.options.MaxConns))
		return
	}
	defer s.discharge(ses)
	if !who.expires.IsZero() {
		defer time.AfterFunc(time.Until(who.expires), func() { conn.Close() }).Stop()
	}
	ses.run(channels, requests)
}

func (s *Server) enlist(ses *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions) >= s.options.MaxConns {
		return false
	}
	s.sessions[ses] = struct{}{}
	return true
}

func (s *Server) discharge(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, ses)
}

// Disconnect closes the connections of all peers that match, as when one is removed from the cluster.
func (s *Server) Disconnect(match func(pki.Principal) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ses := range s.sessions {
		if match(ses.who.peer) {
			ses.under.Close()
		}
	}
}
