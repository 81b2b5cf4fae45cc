package coordinator

import (
	"context"
	"sync"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/evidence"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
)

// askWithin bounds how long a host may take to answer before it is called silent.
const askWithin = 3 * time.Second

// Situation asks both hosts, and says what a person may decide about a migration.
func (c *Coordinator) Situation(ctx context.Context, id migration.ID) (api.Situation, error) {
	l, err := c.leading()
	if err != nil {
		return api.Situation{}, err
	}
	if err := c.node.Fresh(ctx); err != nil {
		return api.Situation{}, err
	}
	m, err := c.migrationRecord(id)
	if err != nil {
		return api.Situation{}, err
	}
	var w record.Workload
	c.node.Read(func(s *record.State) { w = s.Workloads[m.Workload] })
	var source, target evidence.Word
	var both sync.WaitGroup
	both.Go(func() { source = c.wordOf(ctx, l, m, migration.Source) })
	both.Go(func() { target = c.wordOf(ctx, l, m, migration.Target) })
	both.Wait()
	return evidence.Assess(m, w, source, target), ctx.Err()
}

// wordOf asks a host how its session of m stands. That it does not answer counts only if its heartbeats have ceased too.
func (c *Coordinator) wordOf(ctx context.Context, l *lead, m record.Migration, role migration.Role) evidence.Word {
	name := m.Host(role)
	said := l.presence.of(name)
	word := evidence.Word{Answer: api.Answer{Host: name, Role: role, Heard: said.At, Boot: said.Facts.Boot}}
	if st, ok := l.presence.status(name, m.Workload); ok {
		word.Lives = st.Epoch > m.Epoch && (st.State == workload.Running || st.State == workload.Stopped)
	}
	h, err := c.hostRecord(name)
	if err != nil {
		word.Removed = true
		return word
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	st, err := c.worker(h).Session(ctx, m.ID)
	now := time.Now()
	switch errs.KindOf(err) {
	case errs.NotFound:
		word.Heard, word.Absent = now, true
	case errs.Unavailable, errs.Timeout, errs.Aborted:
		word.Error = err.Error()
		word.Early = !l.presence.silent(name, now)
		if word.Silent = said.At; said.At.IsZero() { // it has never been heard of by this leader
			word.Silent = l.presence.since
		}
	default:
		word.Heard = now
		if err != nil {
			word.Error = err.Error()
			break
		}
		word.Take(st)
	}
	return word
}

// Resolve records a person's decision, if the situation bears it at this moment and the migration is still where it was looked at.
func (c *Coordinator) Resolve(ctx context.Context, id migration.ID, req api.ResolveRequest) (api.Migration, error) {
	if err := req.Check(); err != nil {
		return api.Migration{}, err
	}
	now, err := c.Situation(ctx, id)
	if err != nil {
		return api.Migration{}, err
	}
	if why := evidence.Refusal(now, req.Decision); why != "" {
		kind := errs.Refused
		if len(now.Choices) == 0 && (now.Phase.Final() || !now.Phase.Decided()) {
			kind = errs.Conflict
		}
		return api.Migration{}, errs.New(kind, "that the %s of %s cannot be decided: %s", req.Decision, id, why).WithNext("drover resolve %s says what can", id)
	}
	m, err := c.migrationRecord(id)
	if err != nil {
		return api.Migration{}, err
	}
	index, err := c.node.Propose(ctx, by(ctx), record.Resolve{
		Migration: id, From: now.Phase, Epoch: now.Epoch, Decision: req.Decision, Host: req.Vouch, Reason: req.Reason, Answers: now.Answers,
	})
	if err != nil {
		return api.Migration{}, err
	}
	c.log.Warn("a migration was resolved on an operator's word", "migration", id, "workload", m.Workload, "host", req.Vouch,
		"decision", req.Decision, "by", by(ctx), "reason", req.Reason, "index", index)
	return c.Migration(ctx, id)
}
