package record

import (
	"slices"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
)

// Resolve records what a person says of a host that a migration waits for, and what follows from it, if the migration is in phase From and
// the workload at Epoch. Whether the host answers is the proposer's to see: the record only knows what its phases allow.
type Resolve struct {
	Migration migration.ID    `json:"migration"`
	From      migration.Phase `json:"from"`
	Epoch     migration.Epoch `json:"epoch"`
	Decision  api.Decision    `json:"decision"`
	Host      string          `json:"host"` // that By vouches for
	Reason    string          `json:"reason"`
	Answers   []api.Answer    `json:"answers,omitempty"`
}

func (Resolve) kind() Type        { return TypeResolve }
func (r Resolve) subject() string { return string(r.Migration) }

func (r Resolve) apply(s *State, c meta) error {
	if err := (api.ResolveRequest{Decision: r.Decision, Vouch: r.Host, Reason: r.Reason}).Check(); err != nil {
		return err
	}
	m, ok := s.Migrations[r.Migration]
	switch {
	case !ok:
		return unknown("migration", string(r.Migration))
	case m.Phase != r.From:
		return conflict("migration %s is %s, not %s", m.ID, m.Phase, r.From)
	case r.Host != m.Host(r.Decision.About()):
		return errs.New(errs.Invalid, "%s is vouched for, and the %s of %s is %s", r.Host, r.Decision.About(), m.ID, m.Host(r.Decision.About()))
	case m.Fenced(r.Decision.About()):
		return conflict("host %s has been taken for dead already", r.Host)
	case !m.allows(r.Decision):
		return conflict("migration %s is %s: it does not wait for anybody to say that its %s", m.ID, m.Phase, r.Decision)
	}
	if events := r.events(m); len(events) > 0 {
		step := Step{Migration: m.ID, From: r.From, Epoch: r.Epoch, Events: events, Note: "on the word of " + c.by, Answers: r.Answers}
		if r.Decision == api.TargetIsDead {
			step.Reason = c.by + " vouches that host " + r.Host + " is fenced: " + r.Reason
		}
		if err := step.apply(s, c); err != nil {
			return err
		}
		m = s.Migrations[m.ID]
	} else if _, err := s.at(m.Workload, r.Epoch); err != nil {
		return err
	}
	entry := c.transition(m.Phase, s.Workloads[m.Workload], "", r.Answers)
	if r.Decision == api.TargetIsAlive {
		entry.Note = probationOver
		m.Passed, m.ProbationOver = &entry, true
	}
	m.Note = ""
	m.Resolutions = append(slices.Clip(m.Resolutions), api.Resolution{
		Decision: r.Decision, Host: r.Host, By: c.by, Reason: r.Reason, Phase: r.From, Time: c.time, Index: c.index, Term: c.term, Answers: entry.Answers,
	})
	s.Migrations[m.ID] = m
	return nil
}

// events are what the decision carries the migration through, none if it only ends a wait.
func (r Resolve) events(m Migration) []migration.Event {
	switch {
	case r.Decision == api.TargetIsDead && m.reclaimable():
		return []migration.Event{migration.EvReclaim}
	case r.Decision == api.TargetIsAlive && m.Phase == migration.Committed:
		return []migration.Event{migration.EvReleased}
	}
	return nil
}

// allows says whether the migration may wait, in its phase, for what the decision settles.
func (m Migration) allows(d api.Decision) bool {
	switch d {
	case api.TargetIsDead:
		return m.Phase.Decided() && !m.Phase.Final()
	case api.TargetIsAlive:
		return m.reclaimable()
	case api.SourceIsDead:
		return m.Phase == migration.Aborted || m.Phase == migration.Reclaimed || m.Phase == migration.Released && m.ProbationOver
	}
	return false
}

// reclaimable says whether the source is still held, by all that the record knows: it may have the tree back if the target's is dead.
func (m Migration) reclaimable() bool {
	return m.Phase == migration.Committed || m.Phase == migration.Released && !m.ProbationOver
}

// Fenced says whether somebody has vouched that the host of that role is dead.
func (m Migration) Fenced(r migration.Role) bool {
	return slices.ContainsFunc(m.Resolutions, func(x api.Resolution) bool { return x.Decision != api.TargetIsAlive && x.Decision.About() == r })
}
