package link

import (
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/pki"
)

// maxExtra bounds what a channel's opener may send with its request, in bytes.
const maxExtra = 4 << 10

// session is one authenticated connection of a server.
type session struct {
	server *Server
	peer   pki.Principal
	conn   ssh.Conn
	under  *watched
	open   atomic.Int64 // channels
}

// run hands the peer's channels to their listeners until the connection ends.
func (s *session) run(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	log := s.server.log.With(slog.String("peer", s.peer.String()))
	done := make(chan struct{})
	defer close(done)
	go ssh.DiscardRequests(requests)
	go keepAlive(s.conn, s.under, s.server.options.KeepAlive, done, func(silent time.Duration) {
		log.Warn("a peer is silent, its connection is closed", slog.Duration("silent", silent))
	})
	for request := range channels {
		reason, why := s.take(request)
		if why == "" {
			continue
		}
		log.Warn("a channel was refused", slog.String("type", request.ChannelType()), slog.String("reason", why))
		if request.Reject(reason, why) != nil {
			return
		}
	}
}

// take gives a channel to the listener of its type, or says why not.
func (s *session) take(request ssh.NewChannel) (ssh.RejectionReason, string) {
	l := s.server.listenerOf(request.ChannelType())
	switch {
	case l == nil:
		return ssh.UnknownChannelType, "nothing here serves " + quoteShort(request.ChannelType())
	case s.server.removed(s.peer) || !l.allow(s.peer):
		return ssh.Prohibited, s.peer.String() + " may not open " + l.kind
	case len(request.ExtraData()) > maxExtra:
		return ssh.ConnectionFailed, "too much extra data"
	case s.open.Add(1) > int64(s.server.options.MaxChannels):
		s.open.Add(-1)
		return ssh.ResourceShortage, "too many channels on this connection"
	case !l.reserve():
		s.open.Add(-1)
		return ssh.ResourceShortage, "too many channels wait for " + l.kind
	}
	ch, requests, err := request.Accept()
	if err != nil {
		s.open.Add(-1)
		l.unreserve()
		return ssh.ConnectionFailed, err.Error()
	}
	l.deliver(newConn(ch, requests, s.under, s.peer, request.ExtraData(), func() { s.open.Add(-1) }))
	return 0, ""
}
