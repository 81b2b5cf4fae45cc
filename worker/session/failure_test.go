package session_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session"
)

var errBroken = errors.New("broken")

// run drives a migration as a coordinator does until something fails, and says what. Both sides then get their verdict.
func (p *pair) run() error {
	ctx := p.t.Context()
	if _, err := p.target.Open(ctx, p.request(migration.Target)); err != nil {
		return err
	}
	if _, err := p.source.Open(ctx, p.request(migration.Source)); err != nil {
		return err
	}
	if st := p.await(p.source, workerapi.StepReady, workerapi.StepFailed); st.Step == workerapi.StepFailed {
		return errors.New(st.Error)
	}
	if err := p.source.CutOver(ctx, p.id, at); err != nil {
		return err
	}
	if st := p.await(p.source, workerapi.StepStaged, workerapi.StepFailed); st.Step == workerapi.StepFailed {
		return errors.New(st.Error)
	}
	if st := p.await(p.target, workerapi.StepHeld, workerapi.StepFailed); st.Step == workerapi.StepFailed {
		return errors.New(st.Error)
	}
	return nil
}

// abort tells both hosts to undo, those that know of the migration.
func (p *pair) abort() {
	p.t.Helper()
	for _, r := range []*session.Registry{p.source, p.target} {
		if st, err := r.Decide(p.t.Context(), p.id, migration.Abort, at); errs.KindOf(err) == errs.NotFound {
			continue
		} else if err != nil || st.Step != workerapi.StepUndone {
			p.t.Errorf("abort: %s, %v", st.Step, err)
		}
	}
}

// carryOut has both hosts do what a verdict that is theirs to hear says, to the end, and checks where the tree then lives.
func (p *pair) carryOut(v migration.Verdict) {
	p.t.Helper()
	if v == migration.Abort {
		p.abort()
		p.livesOnlyOn("alpha")
		p.nothingIsLent()
		return
	}
	p.decide(p.target, v)
	p.decide(p.source, v)
	p.confirm(p.source)
	p.confirm(p.target)
	p.livesOnlyOn("beta")
}

// nothingIsLent checks that a migration has left no claim on either host.
func (p *pair) nothingIsLent() {
	p.t.Helper()
	if p.alpha.Busy(name) || p.beta.Busy(name) || p.target.Reserved() != 0 {
		p.t.Errorf("left: alpha lent %v, beta lent %v, %d bytes promised", p.alpha.Busy(name), p.beta.Busy(name), p.target.Reserved())
	}
}

func TestAnEngineThatDiesWhileItWaitsForTheImagesIsStartedAgain(t *testing.T) {
	p := newPair(t)
	p.world.Fail("beta:ready", engine.ErrLost)
	p.world.Before("alpha:dump", func() { p.world.Fail("beta:ready", nil) })
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
	p.abort()
	p.nothingIsLent()
}

func TestWhateverFailsBeforeTheVerdictTheSourceRunsOn(t *testing.T) {
	for _, step := range []string{
		"alpha:lend", "alpha:track", "alpha:round", "alpha:carry", "alpha:dump", "alpha:fence", "alpha:dump-end", "alpha:memory",
		"beta:reserve", "beta:fills", "beta:fill", "beta:receive", "beta:restore", "beta:filled",
	} {
		t.Run(step, func(t *testing.T) {
			p := newPair(t)
			p.world.Fail(step, errBroken)
			if err := p.run(); err == nil {
				t.Fatal("the migration went on as if nothing had failed")
			}
			if !slices.Contains(p.world.Steps(), step) {
				t.Fatalf("it was never reached")
			}
			if ran := p.beta.Copy(name); ran != nil && ran.State() == "running" {
				t.Error("the target runs without a verdict")
			}
			p.abort()
			p.livesOnlyOn("alpha")
			p.nothingIsLent()
			p.world.Fail(step, nil)
			p.retry()
		})
	}
}

// retry migrates again, with another id, to the end.
func (p *pair) retry() {
	p.t.Helper()
	p.id = "m-2"
	p.upTo(migration.Done)
	p.livesOnlyOn("beta")
}

func TestAFailedSourceThatIsHeldStaysHeldUntilTheVerdict(t *testing.T) {
	p := newPair(t)
	p.world.Before("beta:receive", func() {
		if p.tree.State() == "frozen" { // files come again while the tree is frozen: the target breaks now
			p.world.Fail("beta:receive", errBroken)
		}
	})
	if err := p.run(); err == nil {
		t.Fatal("nothing failed")
	}
	p.await(p.source, workerapi.StepFailed)
	if p.tree.State() != "frozen" || !p.tree.Fenced() {
		t.Errorf("without a verdict the source is %s, fenced %v", p.tree.State(), p.tree.Fenced())
	}
	p.abort()
	p.livesOnlyOn("alpha")
}

func TestAbortAtEveryPointLeavesTheSourceAsItWas(t *testing.T) {
	for _, c := range []struct {
		when string
		do   func(*pair)
	}{
		{"only the target is open", func(p *pair) { p.target.Open(p.t.Context(), p.request(migration.Target)) }},
		{"just opened", func(p *pair) { p.open() }},
		{"ready", func(p *pair) { p.open(); p.await(p.source, workerapi.StepReady) }},
		{"cut-over just asked for", func(p *pair) {
			p.open()
			p.await(p.source, workerapi.StepReady)
			p.source.CutOver(p.t.Context(), p.id, at)
		}},
		{"frozen", func(p *pair) {
			p.open()
			p.await(p.source, workerapi.StepReady)
			p.source.CutOver(p.t.Context(), p.id, at)
			p.await(p.source, workerapi.StepFrozen)
		}},
		{"held", func(p *pair) { p.upTo(migration.Held) }},
	} {
		t.Run(c.when, func(t *testing.T) {
			p := newPair(t)
			c.do(p)
			p.abort()
			p.livesOnlyOn("alpha")
			p.nothingIsLent()
			p.abort() // again
			p.livesOnlyOn("alpha")
			p.retry()
		})
	}
}

func TestAnUndoThatFailsIsDoneWhenItIsAskedForAgain(t *testing.T) {
	for _, step := range []string{"alpha:hold-abort", "alpha:unfence", "alpha:thaw", "alpha:return", "beta:discard"} {
		t.Run(step, func(t *testing.T) {
			p := newPair(t)
			p.upTo(migration.Held)
			p.world.Fail(step, errBroken)
			r := p.source
			if step == "beta:discard" {
				r = p.target
			}
			if _, err := r.Decide(t.Context(), id, migration.Abort, at); err == nil {
				t.Error("the failure was not told")
			}
			p.world.Fail(step, nil)
			p.abort()
			p.livesOnlyOn("alpha")
			p.nothingIsLent()
		})
	}
}

func TestACommitThatFailsIsDoneWhenItIsAskedForAgain(t *testing.T) {
	for _, step := range []string{"beta:accept", "alpha:hold-commit", "alpha:kill", "alpha:leave"} {
		t.Run(step, func(t *testing.T) {
			p := newPair(t)
			p.upTo(migration.Held)
			p.world.Fail(step, errBroken)
			if step == "alpha:kill" {
				p.world.Fail("alpha:hold-commit", errBroken) // only then it is killed
			}
			_, e1 := p.target.Decide(t.Context(), id, migration.Commit, at+1)
			_, e2 := p.source.Decide(t.Context(), id, migration.Commit, at+1)
			_, e3 := p.source.Confirm(t.Context(), id, at+1)
			if (e1 != nil) != (step == "beta:accept") || e2 != nil || (e3 != nil) != (step == "alpha:kill" || step == "alpha:leave") {
				t.Errorf("release: %v; note: %v; confirm: %v", e1, e2, e3)
			}
			p.world.Fail(step, nil)
			p.decide(p.target, migration.Commit)
			p.confirm(p.source)
			p.confirm(p.target)
			p.livesOnlyOn("beta")
		})
	}
}

func TestAHeldTargetWhoseEngineDiesHasNeverRun(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	p.beta.LoseHold(name)
	p.await(p.target, workerapi.StepFailed)
	if _, err := p.target.Decide(t.Context(), id, migration.Commit, at+1); err == nil {
		t.Error("it was released although its engine had died")
	}
	if st := p.state(p.target); !st.NeverRan || st.Alive {
		t.Errorf("it is not proven that it never ran: %+v", st)
	}
	p.decide(p.source, migration.Commit)
	p.decide(p.target, migration.Reclaim)
	p.decide(p.source, migration.Reclaim)
	p.livesOnlyOn("alpha")
	p.nothingIsLent()
}

func TestAHeldSourceWhoseEngineDiesStaysHeldAndStillObeys(t *testing.T) {
	for _, v := range []migration.Verdict{migration.Commit, migration.Abort} {
		t.Run(string(v), func(t *testing.T) {
			p := newPair(t)
			p.upTo(migration.Held)
			p.alpha.LoseHold(name)
			if p.tree.State() != "frozen" {
				t.Errorf("it is %s", p.tree.State())
			}
			if v == migration.Abort {
				p.abort()
				p.livesOnlyOn("alpha")
				return
			}
			p.decide(p.target, v)
			p.decide(p.source, v)
			p.confirm(p.source)
			p.livesOnlyOn("beta")
		})
	}
}

func TestALostConnectionIsReplacedAndTheCopyGoesOn(t *testing.T) {
	for _, step := range []string{"alpha:carry", "alpha:dump", "alpha:fence", "alpha:dump-end"} {
		t.Run(step, func(t *testing.T) {
			p := newPair(t)
			want := p.tree.Memory()
			p.world.Before(step, p.cut)
			p.upTo(migration.Held)
			if !reflect.DeepEqual(p.beta.Copy(name).Memory(), want) {
				t.Error("what arrived is not what was sent")
			}
			p.decide(p.target, migration.Commit)
			p.decide(p.source, migration.Commit)
			p.confirm(p.source)
			p.livesOnlyOn("beta")
		})
	}
}

func TestASourceThatNeverHearsThatItIsStagedStillEndsAsDecided(t *testing.T) {
	for _, v := range []migration.Verdict{migration.Commit, migration.Abort} {
		t.Run(string(v), func(t *testing.T) {
			p := newPair(t)
			p.world.Before("beta:receive", func() {
				if p.tree.State() == "frozen" {
					p.network.Delay(300 * time.Millisecond) // the target's answer is still on its way when the link breaks
				}
			})
			p.world.Before("beta:restore", p.cut)
			p.open()
			p.await(p.source, workerapi.StepReady)
			if err := p.source.CutOver(t.Context(), id, at); err != nil {
				t.Fatal(err)
			}
			p.await(p.target, workerapi.StepHeld)
			if st := p.state(p.source); st.Step != workerapi.StepFrozen {
				t.Fatalf("the source is %s: it was to miss the answer", st.Step)
			}
			p.network.Delay(0)
			p.carryOut(v)
		})
	}
}

func TestATreeThatCannotBeDumpedAtTheMomentIsTriedAgain(t *testing.T) {
	p := newPair(t)
	tries := 0
	p.world.Fail("alpha:dump", engine.ErrMoment)
	p.world.Before("alpha:dump", func() {
		if tries++; tries == 3 {
			p.world.Fail("alpha:dump", nil)
		}
	})
	p.upTo(migration.Done)
	p.livesOnlyOn("beta")
	if tries != 3 {
		t.Errorf("it was tried %d times", tries)
	}
}

func TestATreeThatCannotBeDumpedAtAnyMomentRunsOn(t *testing.T) {
	p := newPair(t)
	p.world.Fail("alpha:dump", engine.ErrMoment)
	if err := p.run(); err == nil {
		t.Fatal("the migration went on as if nothing had failed")
	}
	p.abort()
	p.livesOnlyOn("alpha")
	p.nothingIsLent()
}

func TestATreeWhoseMemoryCannotBeLeftOutMovesWhole(t *testing.T) {
	p := newPair(t)
	p.world.Fail("alpha:dump", engine.ErrNotLazy)
	tries := 0
	p.world.Before("alpha:dump", func() {
		if tries++; tries == 2 {
			p.world.Fail("alpha:dump", nil)
		}
	})
	movesWhole(t, p)
	if slices.Contains(p.world.Steps(), "alpha:memory") {
		t.Error("its memory was read although the dump has it")
	}
}
