package session_test

import (
	"testing"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// reclaimed brings the tree back to its source after a COMMIT that the target could not act on.
func (p *pair) reclaimed() {
	p.t.Helper()
	p.decide(p.source, migration.Commit)
	p.decide(p.target, migration.Reclaim)
	p.decide(p.source, migration.Reclaim)
	p.livesOnlyOn("alpha")
	p.nothingIsLent()
}

func TestATargetWhoseEngineDiesAtItsReleaseIsMadeDead(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	p.world.Before("beta:hold-commit", func() { p.beta.LoseHold(name) })
	for range 2 { // the verdict is delivered again
		if _, err := p.target.Decide(t.Context(), id, migration.Commit, at+1); err == nil {
			t.Error("it was released although its engine had died")
		}
		if st := p.state(p.target); st.Step != workerapi.StepFailed || st.Alive || st.NeverRan || st.ExitSignal == 0 {
			t.Errorf("it is not proven dead: %+v", st)
		}
	}
	p.reclaimed()
}

// The source's host went down after COMMIT: its part of the migration still comes to its end.
func TestASourceWhoseHostHasRebootedIsCommittedAndConfirmed(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	p.decide(p.target, migration.Commit)
	p.alpha.Crash(name)
	p.restart("alpha")
	p.decide(p.source, migration.Commit)
	p.confirm(p.source)
	p.confirm(p.target)
	p.livesOnlyOn("beta")
}

func TestATargetThatFailedIsNotDeadBeforeItIsRemoved(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	p.world.Fail("beta:discard", errBroken)
	p.beta.LoseHold(name)
	p.await(p.target, workerapi.StepFailed)
	release := func() workerapi.SessionState {
		if _, err := p.target.Decide(t.Context(), id, migration.Commit, at+1); err == nil {
			t.Error("it was released although its engine had died")
		}
		return p.state(p.target)
	}
	if st := release(); st.NeverRan || st.ExitSignal != 0 {
		t.Errorf("it cannot be removed, and is said to be dead: %+v", st)
	}
	p.world.Fail("beta:discard", nil)
	if st := release(); !st.NeverRan {
		t.Errorf("it has been removed, and is not said to have never run: %+v", st)
	}
	p.reclaimed()
}
