package sim

import (
	"fmt"

	"drover/coordinator/record"
	"drover/internal/migration"
	"drover/internal/safety"
	"drover/worker/session/rules"
)

// breaks notes that a rule has been broken; the first counts.
func (w *world) breaks(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
		w.say("", "BROKEN: %v", w.broken)
	}
}

// seen is the copies of the workload on all hosts, as somebody sees them who can look into all of them at once.
type seen struct {
	copies [3]safety.Copy
	n      int
}

func (c *seen) list() []safety.Copy { return c.copies[:c.n] }

func (w *world) copies() (c seen) {
	for _, h := range w.hosts {
		t := h.place.tree
		if t != nil && t.alive && (h.place.state != fenced || t.runs()) { // a source that was to be left stopped is the user's
			c.copies[c.n] = safety.Copy{Host: h.name, Runs: t.runs(), Whole: h.place.whole()}
			c.n++
		}
	}
	return c
}

// checkCopies holds what runs to the rules of every instant.
func (w *world) checkCopies() {
	c := w.copies()
	if err := safety.OneRuns(c.list()); err != nil {
		w.breaks("%v", err)
	}
	if err := safety.OwnerRuns(c.list(), w.state.Workloads[name].Owner); err != nil {
		w.breaks("%v", err)
	}
}

// checkOp looks at what an op has done.
func (w *world) checkOp(s *session, op rules.Op, err error, before seen) {
	w.checkCopies()
	now := w.copies()
	if w.finished {
		for _, c := range now.list() {
			if c.Runs {
				w.breaks("the tree had ended by itself, and runs again on %s", c.Host)
			}
		}
	}
	if broken := safety.Kept(before.list(), now.list()); broken != nil && w.excuse == "" {
		if !w.bothStruck() || s.Role == migration.Source {
			w.breaks("%v: by %q on %s", broken, op, s.h.name)
		}
		w.excuse = "a copy of which nobody could say whether it ran was killed, and the source's host had gone" // a target is not asked to know of other hosts
	}
	if err == nil && s.Role == migration.Source && (op == rules.EndTree || op == rules.Kill || op == rules.Leave) {
		m := w.state.Migrations[s.Migration]
		if broken := safety.SourceKept(m.ProbationOver, true); broken != nil {
			w.breaks("%v: by %q", broken, op)
		}
	}
	if err == nil && op == rules.TellHeld {
		w.held[s.Migration] = true
	}
	if err == nil && op == rules.TellVerdict {
		w.checkVerdict(s)
	}
	if p := &s.h.place; p.epoch < s.h.epoch() {
		w.breaks("%s went back from epoch %d to %d", s.h.name, s.h.epoch(), p.epoch)
	}
	s.h.most = max(s.h.most, s.h.place.epoch)
}

// checkVerdict compares a verdict that a worker acts on with the record's.
func (w *world) checkVerdict(s *session) {
	m := w.state.Migrations[s.Migration]
	if has := m.Verdict(); s.Verdict != has && !(s.Verdict == migration.Commit && has == migration.Reclaim) {
		w.breaks("%s acts on %q of %s, whose verdict is %q", s.h.name, s.Verdict, m.ID, has)
	}
	if err := safety.NotOlder(s.ruling.Epoch, s.Epoch); err != nil {
		w.breaks("%s: %v", s.h.name, err)
	}
}

func (h *host) epoch() migration.Epoch { return h.most }

// verdicts are those of all migrations, by their number.
func (w *world) verdicts() (v [4]migration.Verdict) {
	for i := range v {
		v[i] = w.state.Migrations[id(i+1)].Verdict()
	}
	return v
}

// checkRecord holds a change of the record to its rules.
func (w *world) checkRecord(before record.Workload, verdicts [4]migration.Verdict) {
	now := w.state.Workloads[name]
	if err := safety.EpochRises(before.Owner, before.Epoch, now.Owner, now.Epoch); err != nil {
		w.breaks("%v", err)
	}
	for i, v := range w.verdicts() {
		if err := safety.VerdictStands(verdicts[i], v); err != nil {
			w.breaks("%s: %v", id(i+1), err)
		}
	}
	m, _ := w.move()
	if m.Verdict() == migration.Commit && !w.held[m.ID] {
		w.breaks("%s: %v", m.ID, safety.HeldFirst(false))
	}
	if m.ProbationOver && m.Phase == migration.Released {
		if t := w.hostOf(m.Target).place.tree; t != nil && t.alive && !t.filled {
			w.breaks("%v", safety.SourceKept(true, false))
		}
	}
}

// settled says whether nothing is left to happen.
func (w *world) settled() bool {
	if len(w.events()) > 0 || w.state.Workloads[name].Migration != "" {
		return false
	}
	for _, h := range w.hosts {
		for _, s := range h.sessions {
			if !s.Ended() {
				return false
			}
		}
	}
	return true
}

// verdict is what is wrong when all should have come to its end.
func (w *world) verdict() error {
	wl := w.state.Workloads[name]
	if wl.Migration != "" {
		m := w.state.Migrations[wl.Migration]
		return fmt.Errorf("migration %s does not end: it is %s (%s)", m.ID, m.Phase, m.Note)
	}
	for _, h := range w.hosts {
		for _, s := range h.sessions {
			if !s.Ended() {
				return fmt.Errorf("the %s of %s on %s does not end: it is %s", s.Role, s.Migration, h.name, s.Step)
			}
		}
	}
	c := w.copies()
	if c.n == 0 && w.excuse != "" {
		return nil
	}
	if err := safety.Settled(c.list(), wl.Owner); err != nil {
		return err
	}
	if w.hostOf(wl.Owner).place.tree.fenced {
		return fmt.Errorf("its address on %s is still hidden", wl.Owner)
	}
	return nil
}

func id(n int) migration.ID { return migration.ID([...]string{"m0", "m1", "m2", "m3", "m4"}[n]) }
