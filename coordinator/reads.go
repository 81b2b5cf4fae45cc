package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/transfer/link"
)

// Cluster is who coordinates, as this coordinator sees it.
func (c *Coordinator) Cluster(ctx context.Context) (api.ClusterStatus, error) {
	leader := c.node.Leader().Name
	out := api.ClusterStatus{Leader: leader, Term: c.node.Term(), Index: c.node.Applied()}
	c.node.Read(func(s *record.State) { out.Name = s.Cluster })
	out.Coordinators = c.members(ctx)
	for i, m := range out.Coordinators {
		out.Coordinators[i].Leader = m.Name == leader
	}
	if l := c.lead.Load(); l != nil {
		out.Keys = c.keyStates(l, out.Coordinators)
	}
	if leader == "" {
		out.UnderWay = c.underWay()
	}
	return out, nil
}

// members are the coordinators, as each says of itself.
func (c *Coordinator) members(ctx context.Context) (out []api.CoordinatorState) {
	for _, s := range c.node.Servers() {
		st := c.self()
		if s.Name != c.cfg.Name {
			said, err := c.askPeer(ctx, s.Peer)
			st = api.CoordinatorState{Healthy: err == nil}
			if len(said.Coordinators) == 1 {
				st = said.Coordinators[0]
			}
		}
		st.Name, st.Address = s.Name, s.Address
		out = append(out, st)
	}
	return out
}

// self is what this coordinator says of itself.
func (c *Coordinator) self() api.CoordinatorState {
	id := c.certs.Identity()
	return api.CoordinatorState{
		Name: c.cfg.Name, Healthy: true, CertificateUntil: id.Expires(), Trusts: id.Trust.Fingerprints(), Holds: c.keys.fingerprints(), SignedBy: ssh.FingerprintSHA256(id.UserCert.SignatureKey),
	}
}

// underWay are the migrations that have not ended, by the record as it is here.
func (c *Coordinator) underWay() (out []api.UnderWay) {
	c.node.Read(func(s *record.State) {
		for _, m := range sorted(s.Migrations) {
			if !m.Phase.Final() {
				out = append(out, api.UnderWay{Migration: m.ID, Workload: m.Workload, Source: m.Source, Target: m.Target, Phase: m.Phase, Since: m.Since()})
			}
		}
	})
	return out
}

// Hosts are the cluster's hosts by name.
func (c *Coordinator) Hosts(context.Context) ([]api.Host, error) {
	l, err := c.leading()
	if err != nil {
		return nil, err
	}
	out, now := []api.Host{}, time.Now()
	for _, h := range sorted(c.node.View().Hosts) {
		out = append(out, l.hostNow(h, now))
	}
	return out, nil
}

// Workloads are the cluster's workloads by name.
func (c *Coordinator) Workloads(context.Context) ([]api.Workload, error) {
	l, err := c.leading()
	if err != nil {
		return nil, err
	}
	out, now := []api.Workload{}, time.Now()
	for _, w := range sorted(c.node.View().Workloads) {
		out = append(out, l.workloadNow(w, now))
	}
	return out, nil
}

// Workload is one of them.
func (c *Coordinator) Workload(_ context.Context, name string) (api.Workload, error) {
	l, err := c.leading()
	if err != nil {
		return api.Workload{}, err
	}
	w, err := c.workloadRecord(name)
	if err != nil {
		return api.Workload{}, err
	}
	return l.workloadNow(w, time.Now()), nil
}

// Migrations are those of a workload, or all, newest first.
func (c *Coordinator) Migrations(_ context.Context, workload string) ([]api.Migration, error) {
	l, err := c.leading()
	if err != nil {
		return nil, err
	}
	out := []api.Migration{}
	for _, m := range c.node.View().Migrations {
		if workload == "" || m.Workload == workload {
			out = append(out, l.migrationNow(m))
		}
	}
	slices.SortFunc(out, func(a, b api.Migration) int { return cmp.Compare(b.Transitions[0].Index, a.Transitions[0].Index) })
	return out, nil
}

// Migration is one of them.
func (c *Coordinator) Migration(_ context.Context, id migration.ID) (api.Migration, error) {
	l, err := c.leading()
	if err != nil {
		return api.Migration{}, err
	}
	m, err := c.migrationRecord(id)
	if err != nil {
		return api.Migration{}, err
	}
	return l.migrationNow(m), nil
}

// WatchMigration tells of every change of the record and of the leader's progress.
func (c *Coordinator) WatchMigration(ctx context.Context, id migration.ID, f func(api.Migration) error) error {
	return watch(ctx, c, func(l *lead) (<-chan struct{}, <-chan struct{}) { return c.node.Changed(), l.drivers.Changed() },
		func() (api.Migration, bool, error) {
			m, err := c.Migration(ctx, id)
			return m, m.Phase.Final(), err
		}, f)
}

// watch calls f with what look finds, at once and whenever it finds something else after one of two signals, until look says
// that it is the last.
func watch[T any](ctx context.Context, c *Coordinator, signals func(*lead) (a, b <-chan struct{}), look func() (T, bool, error), f func(T) error) error {
	l, err := c.leading()
	if err != nil {
		return err
	}
	var before T
	for first := true; ; first = false {
		a, b := signals(l)
		now, last, err := look()
		if err != nil {
			return err
		}
		if first || !reflect.DeepEqual(before, now) {
			if err := f(now); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		before = now
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.ctx.Done():
			return c.noLeader()
		case <-a:
		case <-b:
		}
	}
}

// Verdict is linearizable: this coordinator proves that it leads before it looks.
func (c *Coordinator) Verdict(ctx context.Context, id migration.ID) (api.VerdictReply, error) {
	if _, err := c.leading(); err != nil {
		return api.VerdictReply{}, err
	}
	if err := c.node.Fresh(ctx); err != nil {
		return api.VerdictReply{}, err
	}
	m, err := c.migrationRecord(id)
	if err != nil {
		return api.VerdictReply{}, err
	}
	out := api.VerdictReply{Phase: m.Phase, Verdict: m.Verdict()}
	c.node.Read(func(s *record.State) {
		w := s.Workloads[m.Workload]
		out.Epoch, out.Owner = w.Epoch, w.Owner
	})
	if p, _ := link.PeerFrom(ctx); p == pki.Worker(m.Source) && c.movedOn(m) {
		return api.VerdictReply{}, errs.New(errs.Conflict, "migration %s gave %s back to %s, and it has been given away since: what %s still holds of it must not run", id, m.Workload, m.Source, m.Source).
			WithNext("drover rm %s --host %s --force", m.Workload, m.Source)
	}
	return out, nil
}

// movedOn says whether a migration that gave its workload back to the source is over, and the record has given it to somebody else or at
// another epoch since: a source that comes back late, with the tree still held, must not act on the old verdict any more.
func (c *Coordinator) movedOn(m record.Migration) bool {
	epoch := m.Epoch
	switch {
	case !m.Phase.Final() || m.Verdict() == migration.Commit:
		return false
	case m.Verdict() == migration.Reclaim:
		epoch += 2
	}
	w, err := c.workloadRecord(m.Workload)
	return err != nil || w.Owner != m.Source || w.Epoch != epoch
}

// migrationNow joins a migration's record with what its driver knows.
func (l *lead) migrationNow(m record.Migration) api.Migration {
	live := l.drivers.Live(m.ID)
	reason, next := m.Reason, m.Next
	if m.Note != "" { // it has a reason only once it is decided, and a note only while it waits
		reason, next = m.Note, fmt.Sprintf("if that does not end: drover resolve %s", m.ID)
	}
	return api.Migration{
		ID: m.ID, Workload: m.Workload, Source: m.Source, Target: m.Target, Epoch: m.Epoch, Phase: m.Phase, Verdict: m.Verdict(),
		Reason: reason, Next: next, Options: m.Options, Plan: m.Plan, By: m.By, Blackout: m.Blackout,
		Downtime: api.NewDowntime(m.Options.Downtime, m.Predicted, m.Blackout), Transitions: m.Transitions, Progress: live.Source.Progress, Filling: live.Target.Filling, Findings: m.Findings,
	}
}

func (c *Coordinator) hostRecord(name string) (h record.Host, err error) {
	c.node.Read(func(s *record.State) {
		var ok bool
		if h, ok = s.Hosts[name]; !ok {
			err = errs.New(errs.NotFound, "no host is called %q", name).WithNext("drover hosts")
		}
	})
	return h, err
}

func (c *Coordinator) workloadRecord(name string) (w record.Workload, err error) {
	c.node.Read(func(s *record.State) {
		var ok bool
		if w, ok = s.Workloads[name]; !ok {
			err = errs.New(errs.NotFound, "no workload is called %q", name).WithNext("drover workloads")
		}
	})
	return w, err
}

func (c *Coordinator) migrationRecord(id migration.ID) (m record.Migration, err error) {
	c.node.Read(func(s *record.State) {
		var ok bool
		if m, ok = s.Migrations[id]; !ok {
			err = errs.New(errs.NotFound, "no migration is called %q", id).WithNext("drover migrations")
		}
	})
	return m, err
}

// sorted are a map's values in the order of its keys.
func sorted[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
