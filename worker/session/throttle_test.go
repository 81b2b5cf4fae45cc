package session_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// restless is a move of a tree whose budget nothing can meet, and that may be slowed down.
func restless(t *testing.T) *pair {
	p := newPair(t)
	p.opts = workerapi.MoveOptions{Downtime: time.Millisecond, MaxRounds: 2, Throttle: new(40), Patience: new(time.Duration(0))}
	return p
}

// order fails the test unless the steps came in that order, each for the first time.
func order(t *testing.T, steps []string, want ...string) {
	t.Helper()
	at := -1
	for _, w := range want {
		i := slices.Index(steps, w)
		if i < 0 || i < at {
			t.Errorf("%s came at %d, after step %d", w, i, at)
		}
		at = i
	}
}

func TestATreeIsSlowedDownStepByStepAndRunsFreelyWhenItIsFrozen(t *testing.T) {
	p := restless(t)
	most := 0
	p.world.Before("alpha:round", func() { most = max(most, p.tree.Throttled()) })
	p.upTo(migration.Done)
	order(t, p.world.Steps(), "alpha:may-throttle", "alpha:throttle-20", "alpha:throttle-40", "alpha:throttle-end", "alpha:dump")
	if most != 40 || p.tree.Throttled() != 0 {
		t.Errorf("slowed down by %d at most, %d at the end", most, p.tree.Throttled())
	}
	if st := p.state(p.source); !strings.Contains(st.Progress.Note, "over the budget") || st.Progress.Throttle != 0 {
		t.Errorf("it says %q, slowed by %d", st.Progress.Note, st.Progress.Throttle)
	}
	p.livesOnlyOn("beta")
}

func TestAnAbortGivesTheTreeItsTimeBack(t *testing.T) {
	p := restless(t)
	p.open()
	p.await(p.source, workerapi.StepReady)
	p.abort()
	order(t, p.world.Steps(), "alpha:throttle-40", "alpha:throttle-end", "alpha:thaw", "alpha:return")
	p.livesOnlyOn("alpha")
	p.nothingIsLent()
}

func TestASourceThatGivesUpGivesTheTreeItsTimeBack(t *testing.T) {
	p := restless(t)
	p.opts.DowntimeStrict = new(true)
	p.open()
	st := p.await(p.source, workerapi.StepFailed)
	if !strings.Contains(st.Error, "without 40 % of its time") {
		t.Errorf("it says: %s", st.Error)
	}
	if p.tree.Throttled() != 0 {
		t.Errorf("still slowed down by %d", p.tree.Throttled())
	}
	p.abort()
	p.livesOnlyOn("alpha")
}

// A worker that dies while it takes time from a tree leaves what it has done: the next one undoes it from the journal.
func TestAWorkerThatComesBackUndoesAThrottle(t *testing.T) {
	p := restless(t)
	p.world.Fail("alpha:throttle-end", errors.New("the worker was killed"))
	p.open()
	p.await(p.source, workerapi.StepReady)
	p.restart("alpha")
	order(t, p.world.Steps(), "alpha:throttle-40", "alpha:throttle-end", "alpha:unthrottle-as-before", "alpha:thaw", "alpha:return")
	p.abort()
	p.livesOnlyOn("alpha")
	p.nothingIsLent()
	p.restart("alpha") // and once only
	if n := count(p.world.Steps(), "alpha:unthrottle-as-before"); n != 1 {
		t.Errorf("it was undone %d times", n)
	}
}

// A throttle that could not be ended might end in a thaw when the tree is held: it is not frozen then.
func TestATreeIsNotFrozenWhileAThrottleMayBeInForce(t *testing.T) {
	p := restless(t)
	p.world.Fail("alpha:throttle-end", errors.New("cgroup.freeze: input/output error"))
	p.open()
	p.await(p.source, workerapi.StepReady)
	if err := p.source.CutOver(t.Context(), id, at); err != nil {
		t.Fatal(err)
	}
	p.await(p.source, workerapi.StepFailed)
	if slices.Contains(p.world.Steps(), "alpha:dump") {
		t.Error("it was frozen")
	}
	p.world.Fail("alpha:throttle-end", nil)
	p.abort()
	p.livesOnlyOn("alpha")
}

func count(steps []string, step string) (n int) {
	for _, s := range steps {
		if s == step {
			n++
		}
	}
	return n
}
