package session_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

func TestATreeMovesWithItsMemoryAndFiles(t *testing.T) {
	for _, way := range []struct {
		what         string
		leave, fill  bool // the source can leave the memory out, the target can fill it in
		wants, lacks string
	}{
		{"read from the frozen tree and filled in", true, true, "beta:fill", ""},
		{"read from the frozen tree and written to images", true, false, "alpha:memory", "beta:fill"},
		{"through images on both hosts", false, true, "beta:restore", "alpha:memory"},
	} {
		t.Run(way.what, func(t *testing.T) {
			p := newPair(t)
			p.lazy = way.leave
			if !way.fill {
				p.world.Fail("beta:fills", errs.New(errs.Unavailable, "no userfaultfd"))
			}
			movesWhole(t, p)
			if steps := p.world.Steps(); !slices.Contains(steps, way.wants) || slices.Contains(steps, way.lacks) {
				t.Errorf("it went another way: %v", steps)
			}
		})
	}
}

func TestATreeMovesWholeThoughItsTrackerFails(t *testing.T) {
	p := newPair(t)
	p.opts.Tracker = "softdirty"
	movesWhole(t, p)
	moved := p.state(p.source).Progress
	if r := moved.Rounds[0].Track; moved.Tracker != "model" || r.Tracker != "model" || !strings.Contains(r.Fallback, "softdirty failed, model began anew: it broke") {
		t.Errorf("by %s; %+v", moved.Tracker, r)
	}
}

// movesWhole moves a tree that writes between the rounds and the freeze.
func movesWhole(t *testing.T, p *pair) {
	p.upTo(migration.Copying)
	p.await(p.source, workerapi.StepReady)
	p.tree.Write(image.Space{Kind: image.Process, ID: 7}, 0x20000, 3) // after the rounds
	if err := p.source.CutOver(t.Context(), id, at); err != nil {
		t.Fatal(err)
	}
	staged := p.await(p.source, workerapi.StepStaged)
	held := p.await(p.target, workerapi.StepHeld)
	if r := staged.Progress.Rounds; len(r) < 2 || !r[len(r)-1].Final || r[0].PagesSent == 0 || r[0].Track.Tracker == "" {
		t.Errorf("rounds reported: %+v", r)
	}
	if staged.Digest == "" || staged.Digest != held.Digest {
		t.Errorf("digests: source %q, target %q", staged.Digest, held.Digest)
	}
	if run := p.world.Running(name); len(run) > 0 || !slices.Equal(p.world.Held(name), []string{"alpha", "beta"}) {
		t.Errorf("before the verdict it runs on %v and is held on %v", run, p.world.Held(name))
	}
	want := p.tree.Memory()
	released := p.decide(p.target, migration.Commit)
	if released.Step != workerapi.StepReleased || !released.Alive || released.FrozenFor <= 0 {
		t.Errorf("released: %+v", released)
	}
	if !reflect.DeepEqual(p.beta.Copy(name).Memory(), want) {
		t.Error("the memory that arrived is not the memory that was frozen")
	}
	if p.beta.Files(name)["stdout"] == "" {
		t.Error("the output file did not come along")
	}
	p.decide(p.source, migration.Commit)
	if !slices.Equal(p.world.Held(name), []string{"alpha"}) {
		t.Error("the source is not held through probation")
	}
	p.confirm(p.source)
	p.confirm(p.target)
	p.livesOnlyOn("beta")
	if p.beta.Epoch(name) != at+1 {
		t.Errorf("the target's epoch is %s", p.beta.Epoch(name))
	}
}

func TestATreeRunsBeforeItsMemoryIsInPlace(t *testing.T) {
	for _, end := range []struct {
		what  string
		fails error
	}{{"is filled", nil}, {"cannot be filled", errBroken}} {
		t.Run(end.what, func(t *testing.T) {
			p := newPair(t)
			p.opts.Fill = workerapi.FillRunning
			going := make(chan struct{})
			p.world.Before("beta:filled", func() { <-going })
			p.world.Fail("beta:filled", end.fails)
			p.upTo(migration.Released)
			if st := p.state(p.target); st.Filling == nil || st.Filling.All == 0 || !st.Alive {
				t.Errorf("released: %+v", st)
			}
			if !slices.Equal(p.world.Running(name), []string{"beta"}) || p.target.Reserved() == 0 {
				t.Errorf("it runs on %v, %d bytes are promised", p.world.Running(name), p.target.Reserved())
			}
			close(going)
			p.until(p.target, func(st workerapi.SessionState) bool { return st.Filling == nil })
			if end.fails == nil {
				p.decide(p.source, migration.Commit)
				p.confirm(p.source)
				p.confirm(p.target)
				p.livesOnlyOn("beta")
				return
			}
			p.until(p.target, func(st workerapi.SessionState) bool { return !st.Alive && st.ExitSignal != 0 })
			p.reclaimed()
			p.livesOnlyOn("alpha")
		})
	}
}

func TestAFillingIsTakenUpByTheNextWorker(t *testing.T) {
	p := newPair(t)
	p.opts.Fill = workerapi.FillRunning
	going := make(chan struct{})
	p.world.Before("beta:filled", func() { <-going })
	p.upTo(migration.Released)
	p.restart("beta")
	if st := p.state(p.target); st.Filling == nil || st.Step != workerapi.StepReleased {
		t.Errorf("taken up: %+v", st)
	}
	close(going)
	p.until(p.target, func(st workerapi.SessionState) bool { return st.Filling == nil })
	p.decide(p.source, migration.Commit)
	p.confirm(p.source)
	p.confirm(p.target)
	p.livesOnlyOn("beta")
}

func TestMemoryCanBeInPlaceBeforeTheTreeRuns(t *testing.T) {
	p := newPair(t)
	p.opts.Fill = workerapi.FillHeld
	p.world.Before("beta:filled", func() {
		if st := p.state(p.target); st.Step == workerapi.StepHeld {
			t.Error("it was said to be held before its memory was there")
		}
	})
	p.upTo(migration.Done)
	p.livesOnlyOn("beta")
}

func TestNothingOfAFinishedMigrationIsLeftInMemory(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Done)
	for host, dir := range p.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "journal" {
				t.Errorf("%s is left on %s", filepath.Join(dir, e.Name()), host)
			}
		}
	}
	if n := p.target.Reserved(); n != 0 {
		t.Errorf("%d bytes are still promised", n)
	}
}

func TestTheCopyStaysFreshWhileCutOverIsAwaited(t *testing.T) {
	p := newPair(t)
	p.open()
	ready := p.await(p.source, workerapi.StepReady)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	enough := errs.New(errs.Failed, "enough")
	if err := p.source.Watch(ctx, id, 0, func(e workerapi.Event) error {
		if e.State.Progress.Round >= ready.Progress.Round+2 {
			return enough
		}
		return nil
	}); !errors.Is(err, enough) {
		t.Errorf("no rounds after it was ready: %v", err)
	}
}

func TestCutOverWaitsForTheSourceToBeReady(t *testing.T) {
	p := newPair(t)
	blocked := make(chan struct{})
	p.world.Before("alpha:round", func() { <-blocked })
	p.open()
	if err := p.source.CutOver(t.Context(), id, at); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a source in its first round was frozen: %v", err)
	}
	close(blocked)
	p.await(p.source, workerapi.StepReady)
	if err := p.source.CutOver(t.Context(), id, at-1); errs.KindOf(err) != errs.Conflict {
		t.Errorf("an old epoch was taken: %v", err)
	}
	if err := p.target.CutOver(t.Context(), id, at); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a target was frozen: %v", err)
	}
}

func TestAStrictDowntimeIsNotExceeded(t *testing.T) {
	p := newPair(t)
	p.opts = workerapi.MoveOptions{Downtime: time.Millisecond, DowntimeStrict: new(true), MaxRounds: 2}
	p.open()
	st := p.await(p.source, workerapi.StepFailed)
	if st.Kind != errs.Refused.String() || st.Next == "" {
		t.Errorf("failed with kind %q, next %q: %s", st.Kind, st.Next, st.Error)
	}
	if slices.Contains(p.world.Steps(), "alpha:dump") {
		t.Error("it was frozen")
	}
	p.decide(p.source, migration.Abort)
	p.decide(p.target, migration.Abort)
	p.livesOnlyOn("alpha")
}

func TestFinalStatesAreAsAsked(t *testing.T) {
	p := newPair(t)
	p.opts = workerapi.MoveOptions{FinalState: migration.Stopped, SourceFinalState: migration.Stopped}
	p.upTo(migration.Done)
	if s := p.beta.Copy(name).State(); s != "stopped" {
		t.Errorf("the target's tree is %s", s)
	}
	if c := p.alpha.Copy(name); c.State() != "stopped" || !c.Fenced() {
		t.Errorf("the source's tree is %s, fenced %v", c.State(), c.Fenced())
	}
}

func TestATreeThatDiesInProbationComesBack(t *testing.T) {
	p := newPair(t)
	want := p.tree.Memory()
	p.upTo(migration.Released)
	p.decide(p.source, migration.Commit)
	p.beta.Copy(name).Kill(11)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	seen := errs.New(errs.Failed, "seen")
	if err := p.target.Watch(ctx, id, 0, func(e workerapi.Event) error {
		if e.State.ExitSignal == 11 && !e.State.Alive {
			return seen
		}
		return nil
	}); !errors.Is(err, seen) {
		t.Fatalf("its death was not told: %v", err)
	}
	p.decide(p.target, migration.Reclaim)
	if st := p.decide(p.source, migration.Reclaim); st.Step != workerapi.StepUndone {
		t.Errorf("the source is %s", st.Step)
	}
	p.livesOnlyOn("alpha")
	if !reflect.DeepEqual(p.tree.Memory(), want) || p.alpha.Epoch(name) != at+2 {
		t.Errorf("it came back changed, or at epoch %s", p.alpha.Epoch(name))
	}
}

func TestATargetWithoutMemoryRefusesBeforeAnythingIsTouched(t *testing.T) {
	p := newPair(t)
	p.free.Store(1 << 20)
	_, err := p.target.Open(t.Context(), p.request(migration.Target))
	if errs.KindOf(err) != errs.Refused || errs.NextOf(err) == "" {
		t.Errorf("got %v", err)
	}
	if slices.Contains(p.world.Steps(), "beta:reserve") {
		t.Error("a place was made")
	}
	if _, err := p.target.Session(t.Context(), id); errs.KindOf(err) != errs.NotFound {
		t.Errorf("a session is left: %v", err)
	}
}
