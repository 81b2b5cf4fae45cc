package coordinator

import (
	"context"
	"sync"
	"time"

	"drover/coordinator/drive"
	"drover/coordinator/record"
	"drover/internal/pki"
	"drover/transfer/link"
	workerapi "drover/worker/api"
)

// lead is one time of leading: what only the leader knows and does. It begins empty and ends with its ctx.
type lead struct {
	ctx      context.Context
	presence *presence
	drivers  *drive.Set
	dryRuns  dryRuns
}

// leading is this time's lead, errs.Unavailable if this coordinator does not lead.
func (c *Coordinator) leading() (*lead, error) {
	if l := c.lead.Load(); l != nil {
		return l, nil
	}
	return nil, c.noLeader()
}

// leadWhenElected establishes the leader's work when this coordinator is elected and revokes it when it is not any more.
func (c *Coordinator) leadWhenElected(ctx context.Context) error {
	elected := false
	for {
		if !elected {
			select {
			case <-ctx.Done():
				return nil
			case elected = <-c.node.Leadership():
			}
			continue
		}
		term, revoke := context.WithCancel(ctx)
		var work sync.WaitGroup
		work.Go(func() { c.serveTerm(term) })
		select {
		case <-ctx.Done():
		case elected = <-c.node.Leadership(): // true after true: the lead was lost and won again
		}
		revoke()
		work.Wait()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end, and did
		}
	}
}

// serveTerm leads until ctx is done. Every loop starts from the record as it is once all that earlier leaders wrote is in it.
func (c *Coordinator) serveTerm(ctx context.Context) {
	for c.node.Fresh(ctx) != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	l := &lead{ctx: ctx, presence: newPresence(time.Now()), dryRuns: dryRuns{of: map[string]bool{}}}
	l.drivers = drive.NewSet(c.node, hosts{c, l.presence}, pki.Coordinator(c.cfg.Name).String(), c.log)
	c.lead.Store(l)
	c.log.Info("leading", "term", c.node.Term())
	var loops sync.WaitGroup
	for _, loop := range []func(context.Context, *lead){c.driveMigrations, c.admitMembers, c.runPlans} {
		loops.Go(func() { loop(ctx, l) })
	}
	<-ctx.Done()
	c.lead.Store(nil)
	loops.Wait()
	c.log.Info("no longer leading")
}

func (c *Coordinator) driveMigrations(ctx context.Context, l *lead) { l.drivers.Run(ctx) }

// hosts reaches workers for the drivers.
type hosts struct {
	c        *Coordinator
	presence *presence
}

func (h hosts) Worker(host record.Host) workerapi.Worker { return h.c.worker(host) }
func (h hosts) Boot(name string) string                  { return h.presence.of(name).Facts.Boot }

// worker reaches a host's worker. A source that it opens gets the certificate of its transfer.
func (c *Coordinator) worker(h record.Host) workerapi.Worker {
	if c.cfg.Workers != nil {
		return permitting{c.cfg.Workers(c.pool, h), c}
	}
	return permitting{reach(c.pool, h), c}
}

func reach(pool *link.Pool, h record.Host) workerapi.Worker {
	return workerapi.NewClient(pool.HTTP(h.Address, pki.Worker(h.Name).String()))
}
