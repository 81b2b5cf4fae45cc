package link

import (
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// session is one authenticated connection of a server.
type session struct {
	server *Server
	who    admission
	conn   ssh.Conn
	under  *watched
	open   atomic.Int64 // channels
}

// run hands the peer's channels to their listeners until the connection ends.
func (s *session) run(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	log := s.server.log.With(slog.String("peer", s.who.peer.String()))
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
	case s.server.removed(s.who.peer) || !l.allow(s.who.peer):
		return ssh.Prohibited, s.who.peer.String() + " may not open " + l.kind
	case len(request.ExtraData()) > 0:
		return ssh.ConnectionFailed, "no channel type here takes extra data"
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
	l.deliver(newConn(ch, requests, s.under, s.who, func() { s.open.Add(-1) }))
	return 0, ""
}
