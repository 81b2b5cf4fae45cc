package coordinator

import (
	"context"
	"time"

	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	workerapi "drover/worker/api"
)

// permitting is a worker that, when it is opened as a source, is given the certificate with which it may send the pages.
type permitting struct {
	workerapi.Worker
	c *Coordinator
}

func (p permitting) Open(ctx context.Context, req workerapi.OpenRequest) (st workerapi.SessionState, err error) {
	if req.Role == migration.Source {
		if req.Permit, err = p.c.permit(req); err != nil {
			return st, err
		}
	}
	return p.Worker.Open(ctx, req)
}

// permit certifies the source of one migration for its transfer, until that must have been decided.
func (c *Coordinator) permit(req workerapi.OpenRequest) (string, error) {
	until := req.Options.Deadline // of a dry run, which the record does not know
	if until == 0 {
		until = migration.DefaultDeadline
	}
	var source record.Host
	c.node.Read(func(s *record.State) {
		source = s.Hosts[req.Source.Host]
		if m, ok := s.Migrations[req.Migration]; ok {
			until = time.Until(m.Deadline)
		}
	})
	key, err := pki.ParsePublicKey(source.Key)
	if err != nil {
		return "", errs.New(errs.Failed, "permit %s to send %s: its key: %w", req.Source.Host, req.Migration, err)
	}
	ca, err := c.authority()
	if err != nil {
		return "", err
	}
	cert, err := ca.SignTransfer(key, pki.Transfer{
		Migration: req.Migration, Epoch: req.Epoch, Source: req.Source.Host, Target: req.Target.Host, Direction: pki.Pages,
	}, max(until, 0)+pki.Skew) // the target's clock may be ahead
	if err != nil {
		return "", errs.New(errs.KindOf(err), "permit %s to send %s: %w", req.Source.Host, req.Migration, err)
	}
	return pki.Format(cert), nil
}
