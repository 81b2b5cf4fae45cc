package agent

import (
	"context"
	"strings"
	"time"

	coordinatorapi "drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/internal/workload"
)

const (
	beatEvery   = time.Second
	beatTimeout = 3 * time.Second
)

// beat tells the coordinators every second how the host is, until ctx is done. One that is not heard costs nothing but a line
// in the log, and only the first of a row.
func (a *Agent) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	unheard := false
	for {
		err := a.beatOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !unheard:
			a.log.Warn("heartbeat not heard; trying on", "error", err)
		case err == nil && unheard:
			a.log.Info("heartbeat is heard again")
		}
		unheard = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) beatOnce(ctx context.Context) error {
	facts, err := a.Host(ctx)
	if err != nil {
		return err
	}
	here, err := a.Workloads(ctx)
	if err != nil {
		return err
	}
	hb := coordinatorapi.Heartbeat{Facts: facts, Workloads: here, Sessions: a.States()}
	var reply coordinatorapi.HeartbeatReply
	if err := a.coordinators.call(ctx, func(c coordinatorapi.Coordinator) (err error) {
		ctx, cancel := context.WithTimeout(ctx, beatTimeout)
		defer cancel()
		reply, err = c.Heartbeat(ctx, hb)
		return err
	}); err != nil {
		return err
	}
	a.compare(here, reply.Epochs)
	a.LimitHost(reply.Bandwidth)
	a.Forget(reply.Forget...)
	if err := a.followKeys(ctx, reply); err != nil {
		return errs.New(errs.KindOf(err), "follow the change of the cluster's key: %w", err)
	}
	return nil
}

// followKeys has this worker trust what the cluster does, and be certified by what signs.
func (a *Agent) followKeys(ctx context.Context, reply coordinatorapi.HeartbeatReply) error {
	if reply.Signing == "" {
		return nil
	}
	trust, err := pki.ParseTrust(strings.Join(reply.Authorities, "\n"))
	if err != nil {
		return err
	}
	signing, err := pki.ParsePublicKey(reply.Signing)
	if err != nil {
		return err
	}
	return a.certs.Follow(ctx, trust, signing)
}

// compare warns of trees that run here although the record says that they are not this host's. Nothing is done about it: a
// record may have been lost with its coordinators, and a tree is not killed on a suspicion.
func (a *Agent) compare(here []workload.Status, owned map[string]migration.Epoch) {
	for _, w := range here {
		strange := false
		switch w.State {
		case workload.Running, workload.Stopped:
			e, ok := owned[w.Name]
			strange = !ok || e > w.Epoch
		}
		if strange && !a.strangers[w.Name] {
			a.log.Error("a tree lives here that the record does not give to this host", "workload", w.Name, "epoch", w.Epoch, "owned", owned[w.Name])
		}
		a.strangers[w.Name] = strange
	}
}
