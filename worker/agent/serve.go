package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"drover/internal/pki"
	"drover/transfer/link"
	workerapi "drover/worker/api"
)

// serve answers coordinators' calls and takes in other workers' page channels, until ctx is done.
func (a *Agent) serve(ctx context.Context, g *errgroup.Group, l net.Listener) {
	server := link.NewServer(a.cfg.Identity, link.Options{Log: a.log})
	a.certs.Server = server
	calls := server.Listener(link.ChannelAPI, func(p pki.Principal) bool { return p.Role == pki.RoleCoordinator })
	pages := server.Listener(link.ChannelPages, func(p pki.Principal) bool { return p.Role == pki.RoleWorker })
	api := &http.Server{
		Handler:           workerapi.NewHandler(a),
		ConnContext:       link.ConnContext,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	g.Go(func() error { return server.Serve(ctx, l) })
	g.Go(func() error { return unlessClosed(ctx, api.Serve(calls)) })
	g.Go(func() error { return unlessClosed(ctx, a.takePages(ctx, pages)) })
	context.AfterFunc(ctx, func() { api.Close() })
}

// takePages hands each page channel to the session it is for.
func (a *Agent) takePages(ctx context.Context, l net.Listener) error {
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		peer, ok := link.PeerOf(conn)
		if !ok {
			conn.Close()
			continue
		}
		go func() {
			defer conn.Close()
			if err := a.TakePages(ctx, peer.Name, link.ExtraOf(conn), conn); err != nil {
				a.log.Warn("page channel ended", "from", peer.Name, "error", err)
			}
		}()
	}
}

// unlessClosed is err, or nil if serving ended because it was to.
func unlessClosed(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil //nolint:nilerr // it ended because it was told to
	}
	return err
}
