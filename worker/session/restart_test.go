package session_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

func TestARestartBeforeTheFreezeLeavesTheSourceRunning(t *testing.T) {
	for _, host := range []string{"alpha", "beta"} {
		t.Run(host, func(t *testing.T) {
			p := newPair(t)
			p.open()
			p.await(p.source, workerapi.StepReady)
			p.restart(host)
			r := map[string]func() workerapi.SessionState{
				"alpha": func() workerapi.SessionState { return p.state(p.source) },
				"beta":  func() workerapi.SessionState { return p.state(p.target) },
			}[host]
			if st := r(); st.Step != workerapi.StepFailed || st.Error == "" {
				t.Errorf("after the restart it is %s: %s", st.Step, st.Error)
			}
			if run := p.world.Running(name); !slices.Equal(run, []string{"alpha"}) {
				t.Errorf("it runs on %v", run)
			}
			if host == "alpha" && p.alpha.Busy(name) {
				t.Error("the tree has not been given back")
			}
			p.abort()
			p.livesOnlyOn("alpha")
			p.nothingIsLent()
			p.retry()
		})
	}
}

func TestASourceThatCannotRemoveItsImagesSaysAllTheSameThatItFailed(t *testing.T) {
	p := newPair(t)
	p.open()
	p.await(p.source, workerapi.StepReady)
	p.images = filepath.Join(p.dirs["alpha"], "journal") // a file: what is below it can neither be there nor be removed
	p.restart("alpha")
	if st := p.state(p.source); st.Step != workerapi.StepFailed || st.Error == "" {
		t.Errorf("after the restart it is %s: %s", st.Step, st.Error)
	}
	if p.alpha.Busy(name) {
		t.Error("the tree has not been given back")
	}
	p.images = ""
	p.restart("alpha")
	p.abort()
	p.livesOnlyOn("alpha")
	p.nothingIsLent()
}

// One tree that cannot be let go on keeps no worker from the others: it is tried again, with a verdict and without.
func TestATreeThatCannotBeTakenUpKeepsNoWorkerFromTheOthers(t *testing.T) {
	for _, step := range []string{"unfence", "thaw", "return"} {
		for _, verdict := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, verdict %t", step, verdict), func(t *testing.T) {
				p := newPair(t)
				p.open()
				p.await(p.source, workerapi.StepReady)
				p.world.Fail("alpha:"+step, errBroken)
				p.restart("alpha")
				if st := p.state(p.source); st.Step != workerapi.StepFailed || !strings.Contains(st.Error, "is tried again") {
					t.Errorf("after the restart it is %s: %s", st.Step, st.Error)
				}
				if !p.alpha.Busy(name) {
					t.Error("the tree was given back")
				}
				if verdict {
					if _, err := p.source.Decide(t.Context(), id, migration.Abort, at); err == nil {
						t.Error("the verdict was carried out")
					}
				}
				p.world.Fail("alpha:"+step, nil)
				for p.alpha.Busy(name) && !verdict {
					runtime.Gosched()
				}
				p.abort()
				p.livesOnlyOn("alpha")
				p.nothingIsLent()
			})
		}
	}
	t.Run("freeze", func(t *testing.T) {
		p := newPair(t)
		p.upTo(migration.Held)
		p.alpha.LoseKeeper(name)
		p.world.Fail("alpha:freeze", errBroken)
		p.restart("alpha")
		if st := p.state(p.source); st.Step != workerapi.StepFailed {
			t.Errorf("after the restart it is %s: %s", st.Step, st.Error)
		}
		p.world.Fail("alpha:freeze", nil)
		p.abort()
		p.livesOnlyOn("alpha")
	})
}

// A full disk, say.
func TestAJournalThatCannotBeShortenedKeepsNoWorkerFromItsTrees(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	if err := os.Mkdir(filepath.Join(p.dirs["alpha"], "journal.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.restart("alpha")
	p.abort()
	p.livesOnlyOn("alpha")
	p.nothingIsLent()
}

func TestARestartWhileHeldHoldsUntilTheVerdict(t *testing.T) {
	for _, host := range []string{"alpha", "beta"} {
		for _, v := range []migration.Verdict{migration.Commit, migration.Abort} {
			t.Run(host+" "+string(v), func(t *testing.T) {
				p := newPair(t)
				p.upTo(migration.Held)
				p.restart(host)
				if run, held := p.world.Running(name), p.world.Held(name); len(run) > 0 || !slices.Equal(held, []string{"alpha", "beta"}) {
					t.Fatalf("after the restart it runs on %v and is held on %v", run, held)
				}
				if d := p.state(p.target).Digest; d == "" {
					t.Error("the target has forgotten the digest of what it holds")
				}
				if v == migration.Abort {
					p.abort()
					p.livesOnlyOn("alpha")
					p.nothingIsLent()
					return
				}
				p.decide(p.target, v)
				p.decide(p.source, v)
				p.restart(host) // once more, in probation
				p.confirm(p.source)
				p.confirm(p.target)
				p.livesOnlyOn("beta")
			})
		}
	}
}

func TestAVerdictThatWasTakenIsCarriedOutAfterTheRestart(t *testing.T) {
	for _, c := range []struct {
		host, step string
		v          migration.Verdict
		lives      string
	}{
		{"alpha", "alpha:hold-abort", migration.Abort, "alpha"},
		{"alpha", "alpha:thaw", migration.Abort, "alpha"},
		{"beta", "beta:discard", migration.Abort, "alpha"},
		{"beta", "beta:hold-commit", migration.Commit, "beta"},
		{"beta", "beta:accept", migration.Commit, "beta"},
	} {
		t.Run(c.step, func(t *testing.T) {
			p := newPair(t)
			p.upTo(migration.Held)
			p.world.Fail(c.step, errBroken)
			if c.host == "alpha" {
				p.source.Decide(t.Context(), id, c.v, epochOf(c.v))
			} else {
				p.target.Decide(t.Context(), id, c.v, epochOf(c.v))
			}
			p.world.Fail(c.step, nil)
			p.restart(c.host)
			if c.lives == "beta" {
				if st := p.state(p.target); st.Step != workerapi.StepReleased || !st.Alive {
					t.Errorf("after the restart the target is %s, alive %v: %s", st.Step, st.Alive, st.Error)
				}
				p.decide(p.source, migration.Commit)
				p.confirm(p.source)
				p.confirm(p.target)
			} else {
				p.abort()
			}
			p.livesOnlyOn(c.lives)
		})
	}
}

func TestWhenKeeperAndWorkerDieNothingRunsWithoutAVerdict(t *testing.T) {
	t.Run("source", func(t *testing.T) {
		p := newPair(t)
		p.upTo(migration.Held)
		p.alpha.LoseKeeper(name)
		p.restart("alpha")
		if st := p.state(p.source); st.Step != workerapi.StepFailed || p.tree.State() != "frozen" || !p.tree.Fenced() {
			t.Errorf("it is %s, fenced %v, the session %s", p.tree.State(), p.tree.Fenced(), st.Step)
		}
		p.abort()
		p.livesOnlyOn("alpha")
	})
	t.Run("source, commit", func(t *testing.T) {
		p := newPair(t)
		p.upTo(migration.Held)
		p.alpha.LoseKeeper(name)
		p.restart("alpha")
		p.decide(p.target, migration.Commit)
		p.decide(p.source, migration.Commit)
		p.confirm(p.source)
		p.livesOnlyOn("beta")
	})
	t.Run("target", func(t *testing.T) {
		p := newPair(t)
		p.upTo(migration.Held)
		p.beta.LoseKeeper(name)
		p.restart("beta")
		if st := p.state(p.target); st.Step != workerapi.StepFailed || !st.NeverRan {
			t.Errorf("the target is %s, never ran %v", st.Step, st.NeverRan)
		}
		p.abort()
		p.livesOnlyOn("alpha")
	})
	t.Run("target, in the middle of its release", func(t *testing.T) {
		p := newPair(t)
		p.upTo(migration.Held)
		p.world.Fail("beta:hold-commit", errBroken)
		if _, err := p.target.Decide(t.Context(), id, migration.Commit, at+1); err == nil {
			t.Fatal("it was released")
		}
		p.world.Fail("beta:hold-commit", nil)
		p.beta.LoseKeeper(name)
		p.restart("beta")
		if st := p.state(p.target); st.Step != workerapi.StepFailed || st.Alive || st.ExitSignal == 0 || st.NeverRan {
			t.Errorf("it is not proven dead: %+v", st)
		}
		p.decide(p.target, migration.Reclaim)
		p.decide(p.source, migration.Reclaim)
		p.livesOnlyOn("alpha")
	})
}

func TestAWorkerThatComesBackDoesNotSayThatADeadTreeLives(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Released)
	p.target.Close()
	p.beta.Copy(name).Kill(9)
	p.restart("beta")
	if st := p.state(p.target); st.Step != workerapi.StepReleased || st.Alive || st.ExitSignal != 9 {
		t.Errorf("the first that it says is %s, alive %t, signal %d", st.Step, st.Alive, st.ExitSignal)
	}
	p.reclaimed()
}

func TestAWorkerThatDiedWhileItRemovedACopyProvesItDead(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	p.world.Before("beta:hold-commit", func() { p.beta.LoseHold(name) })
	if _, err := p.target.Decide(t.Context(), id, migration.Commit, at+1); err == nil {
		t.Error("it was released although its engine had died")
	}
	p.restart("beta") // which has nothing of it any more
	if st := p.state(p.target); st.Step != workerapi.StepFailed || st.ExitSignal == 0 || st.NeverRan {
		t.Errorf("it is not proven dead: %+v", st)
	}
	p.reclaimed()
}

func TestAHostThatHasRebootedOpensNothingThatWasAdmittedBefore(t *testing.T) {
	p := newPair(t)
	p.boot = "then"
	if _, err := p.target.Open(t.Context(), p.request(migration.Target)); errs.KindOf(err) != errs.Conflict {
		t.Errorf("opened: %v", err)
	}
	p.boot = "now"
	p.upTo(migration.Released)
}

func TestARestartAfterTheEndStillKnowsHowItEnded(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Done)
	p.restart("alpha")
	p.restart("beta")
	for _, r := range []workerapi.SessionState{p.state(p.source), p.state(p.target)} {
		if r.Step != workerapi.StepDone {
			t.Errorf("the %s is %s", r.Role, r.Step)
		}
	}
	p.confirm(p.source)
	if _, err := p.source.Decide(t.Context(), id, migration.Abort, at); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a late abort: %v", err)
	}
	p.livesOnlyOn("beta")
}

func TestAWorkerThatAsksForTheVerdictActsOnIt(t *testing.T) {
	for _, c := range []struct {
		phase  migration.Phase
		source workerapi.Step
		target workerapi.Step
	}{
		{migration.Held, workerapi.StepStaged, workerapi.StepHeld},
		{migration.Committed, workerapi.StepStaged, workerapi.StepReleased},
		{migration.Released, workerapi.StepStaged, workerapi.StepReleased},
		{migration.Done, workerapi.StepDone, workerapi.StepDone},
		{migration.Aborted, workerapi.StepUndone, workerapi.StepUndone},
		{migration.RolledBack, workerapi.StepUndone, workerapi.StepUndone},
		{migration.Reclaimed, workerapi.StepUndone, workerapi.StepUndone},
	} {
		t.Run(string(c.phase), func(t *testing.T) {
			p := newPair(t)
			p.upTo(migration.Held)
			if len(p.source.Unheard(0)) != 1 {
				t.Error("a held source of which nobody speaks is not asked for")
			}
			for range 2 {
				if err := p.target.Learn(t.Context(), id, c.phase); err != nil {
					t.Fatal(err)
				}
				if err := p.source.Learn(t.Context(), id, c.phase); err != nil {
					t.Fatal(err)
				}
			}
			if s, b := p.state(p.source).Step, p.state(p.target).Step; s != c.source || b != c.target {
				t.Errorf("source %s, target %s", s, b)
			}
		})
	}
}

func TestARestartRemovesWhatACrashLeftOfImages(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	mine, stale := filepath.Join(p.dirs["alpha"], "."+string(id)), filepath.Join(p.dirs["alpha"], ".m-0")
	if err := os.MkdirAll(filepath.Join(stale, "dump"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.restart("alpha")
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("images of no migration are still there: %v", err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("those of a held tree are gone: %v", err)
	}
	p.abort()
	if _, err := os.Stat(mine); !os.IsNotExist(err) {
		t.Errorf("an aborted migration left its images: %v", err)
	}
}

// Killed when it had given the tree up and before it dropped the images: nothing of the tree is here to need them.
func TestARestartRemovesTheImagesOfATreeThatHasLeft(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Released)
	p.decide(p.source, migration.Commit)
	p.world.Before("alpha:leave", func() { p.logs["alpha"].Close() }) // what it does from then on is not remembered
	if _, err := p.source.Confirm(t.Context(), p.id, at+1); err == nil {
		t.Fatal("the end was written into a closed journal")
	}
	mine := filepath.Join(p.dirs["alpha"], "."+string(id))
	if err := os.MkdirAll(filepath.Join(mine, "dump"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.restart("alpha")
	if _, err := os.Stat(mine); !os.IsNotExist(err) {
		t.Errorf("its images are still there: %v", err)
	}
	p.confirm(p.source)
	p.confirm(p.target)
	p.livesOnlyOn("beta")
}
