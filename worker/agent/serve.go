package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
	workerapi "drover/worker/api"
)

// serve answers coordinators' calls and takes in other workers' page channels, until ctx is done.
func (a *Agent) serve(ctx context.Context, g *errgroup.Group, l net.Listener) {
	server := link.NewServer(a.cfg.Identity, link.Options{Transfers: true, Log: a.log})
	a.certs.Server = server
	calls := server.Listener(link.ChannelAPI, func(p pki.Principal) bool { return p.Role == pki.RoleCoordinator })
	pages := server.Listener(link.ChannelPages, func(p pki.Principal) bool { return p.Role == pki.RoleTransfer })
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

// dialPages opens a page channel to another worker by the certificate that the coordinator gave for that transfer.
func (a *Agent) dialPages(ctx context.Context, to workerapi.Peer, t pki.Transfer, permit string) (net.Conn, error) {
	cert, err := pki.ParseCertificate(permit)
	if err != nil {
		return nil, errs.New(errs.Forbidden, "send %s: no certificate came with the migration: %w", t, err).WithNext("run the same release of drover everywhere")
	}
	return a.pool.OpenApart(ctx, link.AsSource(a.certs.Identity(), cert), to.Address, pki.Worker(to.Host).String(), link.ChannelPages)
}

// takePages hands each page channel to the session it is for.
func (a *Agent) takePages(ctx context.Context, l net.Listener) error {
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		sent, ok := link.TransferOf(conn)
		if !ok {
			conn.Close()
			continue
		}
		go func() {
			defer conn.Close()
			if err := a.TakePages(ctx, sent, conn); err != nil {
				a.log.Warn("page channel ended", "migration", sent.Migration, "from", sent.Source, "error", err)
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
