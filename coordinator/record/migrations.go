package record

import (
	"slices"
	"strings"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Admit begins a migration, if the workload is where and what the admitter saw, and no other migration of it is under way.
type Admit struct {
	Migration  migration.ID          `json:"migration"`
	Workload   string                `json:"workload"`
	Source     string                `json:"source"`
	Target     string                `json:"target"`
	Epoch      migration.Epoch       `json:"epoch"`
	SourceBoot string                `json:"source_boot,omitempty"`
	TargetBoot string                `json:"target_boot,omitempty"`
	Options    workerapi.MoveOptions `json:"options"`
	Plan       string                `json:"plan,omitempty"`
	Deadline   time.Time             `json:"deadline"`
	Findings   []workerapi.Finding   `json:"findings,omitempty"`
}

func (Admit) kind() Type        { return TypeAdmit }
func (a Admit) subject() string { return string(a.Migration) }

func (a Admit) apply(s *State, c meta) error {
	if err := a.Migration.Valid(); err != nil {
		return err
	}
	if _, ok := s.Migrations[a.Migration]; ok {
		return conflict("migration %s is in the record already", a.Migration)
	}
	w, ok := s.Workloads[a.Workload]
	target, known := s.Hosts[a.Target]
	switch {
	case !ok:
		return unknown("workload", a.Workload)
	case !known:
		return unknown("host", a.Target)
	case a.Source == a.Target:
		return errs.New(errs.Invalid, "%s is on %s already", a.Workload, a.Target)
	case w.Migration != "":
		return conflict("%s is being migrated already, by %s", a.Workload, w.Migration).WithNext("drover watch %s", w.Migration)
	case w.Owner != a.Source:
		return conflict("%s is on %s, not on %s", a.Workload, w.Owner, a.Source)
	case w.Epoch != a.Epoch:
		return conflict("%s is at epoch %d, not %d", a.Workload, w.Epoch, a.Epoch)
	case w.Life != Started:
		return conflict("%s is %s: only a workload that lives can be moved", a.Workload, w.Life)
	case target.Cordoned:
		return conflict("host %s is cordoned", a.Target).WithNext("drover uncordon %s", a.Target)
	}
	s.Migrations[a.Migration] = Migration{
		ID: a.Migration, Workload: a.Workload, Source: a.Source, Target: a.Target, SourceBoot: a.SourceBoot, TargetBoot: a.TargetBoot,
		Epoch: a.Epoch, Phase: migration.Admitted, Options: a.Options, Plan: a.Plan, By: c.by, Deadline: a.Deadline, Findings: a.Findings,
		Transitions: []api.Transition{c.transition(migration.Admitted, w, "", nil)},
	}
	w.Migration = a.Migration
	s.Workloads[w.Name] = w
	return nil
}

// Step carries a migration through one or more events at once, if it is in phase From and the workload at Epoch.
type Step struct {
	Migration migration.ID       `json:"migration"`
	From      migration.Phase    `json:"from"`
	Epoch     migration.Epoch    `json:"epoch"` // the workload's as the proposer knows it; a verdict is refused at any other
	Events    []migration.Event  `json:"events"`
	Note      string             `json:"note,omitempty"`         // for the last transition
	Reason    string             `json:"reason,omitempty"`       // abort, reclaim: why
	Next      string             `json:"next,omitempty"`         // abort, reclaim: what to do about it
	Predicted time.Duration      `json:"predicted_ns,omitempty"` // freeze: the blackout that the source expects
	Expected  workerapi.Expected `json:"expected,omitzero"`      // freeze: its parts
	Blackout  time.Duration      `json:"blackout_ns,omitempty"`  // released: as it was measured
	Answers   []api.Answer       `json:"answers,omitempty"`      // what the proposer had heard of the hosts
}

func (Step) kind() Type        { return TypeStep }
func (t Step) subject() string { return string(t.Migration) }

func (t Step) apply(s *State, c meta) error {
	m, ok := s.Migrations[t.Migration]
	if !ok {
		return unknown("migration", string(t.Migration))
	}
	w, ok := s.Workloads[m.Workload]
	switch {
	case m.Phase != t.From:
		return conflict("migration %s is %s, not %s", m.ID, m.Phase, t.From)
	case !ok || w.Migration != m.ID:
		return conflict("migration %s is not the one under way for %s", m.ID, m.Workload)
	case w.Epoch != t.Epoch:
		return conflict("%s is at epoch %d, not %d", w.Name, w.Epoch, t.Epoch)
	case len(t.Events) == 0:
		return errs.New(errs.Invalid, "a step of migration %s has no event", m.ID)
	}
	m.Transitions = slices.Clip(m.Transitions) // earlier views keep what they saw
	for i, ev := range t.Events {
		to, err := migration.Next(m.Phase, ev)
		if err != nil {
			return err
		}
		if ev == migration.EvReclaim && m.ProbationOver {
			return conflict("migration %s cannot be reclaimed: probation is over and the source may be dead", m.ID)
		}
		m, w = t.effect(ev, m, w)
		tr := c.transition(to, w, "", nil)
		if i == len(t.Events)-1 {
			tr = c.transition(to, w, t.Note, t.Answers)
		}
		m.Phase, m.Transitions = to, append(m.Transitions, tr)
	}
	m.Note, w.Since = "", c.time
	s.Migrations[m.ID], s.Workloads[w.Name] = m, w
	if m.Phase.Final() {
		s.forgetOldMigrations()
	}
	return nil
}

// transition is an entry of the log as a migration remembers it; w is the workload as the entry leaves it.
func (c meta) transition(to migration.Phase, w Workload, note string, answers []api.Answer) api.Transition {
	answers = slices.Clone(answers[:min(len(answers), api.MaxAnswers)])
	for i := range answers {
		answers[i].Error = strings.ToValidUTF8(answers[i].Error[:min(len(answers[i].Error), api.MaxAnswerError)], "")
	}
	return api.Transition{Phase: to, Time: c.time, Index: c.index, Term: c.term, By: c.by, Note: note, Owner: w.Owner, Epoch: w.Epoch, Answers: answers}
}

// effect is what an event changes besides the phase. Ownership changes here and nowhere else in a migration.
func (t Step) effect(ev migration.Event, m Migration, w Workload) (Migration, Workload) {
	switch ev {
	case migration.EvCommit:
		w.Owner, w.Epoch = m.Target, w.Epoch+1
	case migration.EvReclaim:
		w.Owner, w.Epoch = m.Source, w.Epoch+1
		m.Reason, m.Next = t.Reason, t.Next
	case migration.EvAbort:
		m.Reason, m.Next = t.Reason, t.Next
	case migration.EvFreeze:
		m.Predicted, m.Expected = t.Predicted, t.Expected
	case migration.EvReleased:
		m.Blackout = t.Blackout
	case migration.EvConfirm, migration.EvUndone:
		w.Migration = ""
	}
	return m, w
}

// Bandwidth changes what a migration may send while it copies.
type Bandwidth struct {
	Migration      migration.ID `json:"migration"`
	BytesPerSecond int64        `json:"bytes_per_second"` // 0 is no limit
}

func (Bandwidth) kind() Type        { return TypeBandwidth }
func (b Bandwidth) subject() string { return string(b.Migration) }

func (b Bandwidth) apply(s *State, _ meta) error {
	m, ok := s.Migrations[b.Migration]
	switch {
	case !ok:
		return unknown("migration", string(b.Migration))
	case m.Phase != migration.Admitted && m.Phase != migration.Copying:
		return conflict("migration %s is %s: only its copying is limited", m.ID, m.Phase)
	case b.BytesPerSecond < 0:
		return errs.New(errs.Invalid, "a bandwidth of %d bytes a second is not possible", b.BytesPerSecond)
	}
	if m.Options.Bandwidth = b.BytesPerSecond; b.BytesPerSecond == 0 {
		m.Options.Bandwidth = workerapi.Unlimited // not what the policy says
	}
	s.Migrations[m.ID] = m
	return nil
}

// forgetOldMigrations keeps the newest maxEnded of those that have ended.
func (s *State) forgetOldMigrations() {
	if len(s.Migrations) <= maxEnded {
		return
	}
	var ended []Migration
	for _, m := range s.Migrations {
		if m.Phase.Final() {
			ended = append(ended, m)
		}
	}
	slices.SortFunc(ended, func(a, b Migration) int {
		return int(int64(a.Transitions[0].Index) - int64(b.Transitions[0].Index))
	})
	for _, m := range ended[:max(0, len(ended)-maxEnded)] {
		delete(s.Migrations, m.ID)
	}
}

// Note says of a migration that is under way what it waits for, or that its probation is over: from then on the source may be
// told to end its tree, and RECLAIM is refused.
type Note struct {
	Migration     migration.ID    `json:"migration"`
	Phase         migration.Phase `json:"phase"`
	Note          string          `json:"note"`
	ProbationOver bool            `json:"probation_over,omitempty"`
	Answers       []api.Answer    `json:"answers,omitempty"` // what the proposer had heard of the hosts when it was over
}

// probationOver is what the entry says that ends probation.
const probationOver = "probation over: the source may be told to end its tree"

func (Note) kind() Type        { return TypeNote }
func (n Note) subject() string { return string(n.Migration) }

func (n Note) apply(s *State, c meta) error {
	m, ok := s.Migrations[n.Migration]
	switch {
	case !ok:
		return unknown("migration", string(n.Migration))
	case m.Phase != n.Phase:
		return conflict("migration %s is %s, not %s", m.ID, m.Phase, n.Phase)
	case n.ProbationOver && m.Phase != migration.Released:
		return conflict("migration %s is %s: it has no probation to end", m.ID, m.Phase)
	}
	if n.ProbationOver && !m.ProbationOver {
		tr := c.transition(m.Phase, s.Workloads[m.Workload], probationOver, n.Answers)
		m.Passed, m.ProbationOver = &tr, true
	}
	m.Note = n.Note
	s.Migrations[m.ID] = m
	return nil
}
