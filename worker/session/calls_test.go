package session_test

import (
	"context"
	"net"
	"testing"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	workerapi "drover/worker/api"
	"drover/worker/session"
)

func TestEveryCallMayComeTwice(t *testing.T) {
	p := newPair(t)
	twice := func(what string, f func() error) {
		t.Helper()
		for n := range 2 {
			if err := f(); err != nil {
				t.Fatalf("%s, time %d: %v", what, n+1, err)
			}
		}
	}
	twice("open the target", func() error { _, err := p.target.Open(t.Context(), p.request(migration.Target)); return err })
	twice("open the source", func() error { _, err := p.source.Open(t.Context(), p.request(migration.Source)); return err })
	p.await(p.source, workerapi.StepReady)
	twice("cut over", func() error { return p.source.CutOver(t.Context(), id, at) })
	p.await(p.source, workerapi.StepStaged)
	p.await(p.target, workerapi.StepHeld)
	for what, r := range map[string]*session.Registry{"source": p.source, "target": p.target} {
		twice("commit on the "+what, func() error { _, err := r.Decide(t.Context(), id, migration.Commit, at+1); return err })
	}
	for what, r := range map[string]*session.Registry{"source": p.source, "target": p.target} {
		twice("confirm the "+what, func() error { _, err := r.Confirm(t.Context(), id, at+1); return err })
	}
	twice("cut over, late", func() error { return p.source.CutOver(t.Context(), id, at) })
	p.livesOnlyOn("beta")
}

func TestVerdictsThatContradictAreRefused(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Released)
	p.decide(p.source, migration.Commit)
	for what, r := range map[string]*session.Registry{"source": p.source, "target": p.target} {
		if _, err := r.Decide(t.Context(), id, migration.Abort, at); errs.KindOf(err) != errs.Conflict {
			t.Errorf("%s: abort after commit: %v", what, err)
		}
	}
	p.confirm(p.source)
	if _, err := p.source.Decide(t.Context(), id, migration.Reclaim, at+2); errs.KindOf(err) != errs.Conflict {
		t.Errorf("reclaim after the source is dead: %v", err)
	}
	p.livesOnlyOn("beta")
}

func TestACommitThatCannotHaveBeenGivenIsRefused(t *testing.T) {
	p := newPair(t)
	p.open()
	p.await(p.source, workerapi.StepReady)
	for what, r := range map[string]*session.Registry{"source": p.source, "target": p.target} {
		if _, err := r.Decide(t.Context(), id, migration.Commit, at+1); errs.KindOf(err) != errs.Conflict {
			t.Errorf("%s: commit before anything is held: %v", what, err)
		}
		if _, err := r.Confirm(t.Context(), id, at+1); errs.KindOf(err) != errs.Conflict {
			t.Errorf("%s: confirm without a commit: %v", what, err)
		}
	}
	p.abort()
	p.livesOnlyOn("alpha")
}

func TestAnythingOlderThanWhatWasSeenIsRefused(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	for _, c := range []struct {
		v migration.Verdict
		e migration.Epoch
	}{{migration.Commit, at}, {migration.Abort, at - 1}, {migration.Commit, at + 2}, {migration.Reclaim, at + 1}, {"perhaps", at}} {
		if _, err := p.target.Decide(t.Context(), id, c.v, c.e); err == nil {
			t.Errorf("%s at %s was taken", c.v, c.e)
		}
	}
	p.decide(p.target, migration.Commit)
	p.decide(p.source, migration.Commit)
	p.confirm(p.source)
	p.confirm(p.target)
	late := p.request(migration.Source)
	late.Migration = "m-0"
	if _, err := p.source.Open(t.Context(), late); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a migration of an older epoch was opened: %v", err)
	}
}

func TestOnlyTheSourceOfAnOpenMigrationGetsIn(t *testing.T) {
	p := newPair(t)
	if _, err := p.target.Open(t.Context(), p.request(migration.Target)); err != nil {
		t.Fatal(err)
	}
	knock := func(sent pki.Transfer) error {
		here, there := net.Pipe()
		defer here.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return p.target.TakePages(ctx, sent, there)
	}
	good := pki.Transfer{Migration: id, Epoch: at, Source: "alpha", Target: "beta", Direction: pki.Pages}
	for what, c := range map[string]struct {
		change func(*pki.Transfer)
		want   errs.Kind
	}{
		"another source":    {func(t *pki.Transfer) { t.Source = "gamma" }, errs.Forbidden},
		"another target":    {func(t *pki.Transfer) { t.Target = "gamma" }, errs.Forbidden},
		"another direction": {func(t *pki.Transfer) { t.Direction = "target-to-source" }, errs.Forbidden},
		"an old epoch":      {func(t *pki.Transfer) { t.Epoch-- }, errs.Conflict},
		"a later epoch":     {func(t *pki.Transfer) { t.Epoch++ }, errs.Conflict},
		"another migration": {func(t *pki.Transfer) { t.Migration = "m-9" }, errs.NotFound},
	} {
		sent := good
		c.change(&sent)
		if err := knock(sent); errs.KindOf(err) != c.want {
			t.Errorf("%s: %v", what, err)
		}
	}
	p.abort()
	if err := knock(good); errs.KindOf(err) != errs.Conflict {
		t.Errorf("the source of a migration that has ended: %v", err)
	}
}

func TestEventsAreNumberedAndKeepEveryStep(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Done)
	var seq uint64
	var steps []workerapi.Step
	if err := p.source.Watch(t.Context(), id, 0, func(e workerapi.Event) error {
		if e.Seq <= seq || e.Host != "alpha" {
			t.Errorf("event %d of %s after %d", e.Seq, e.Host, seq)
		}
		seq = e.Seq
		if len(steps) == 0 || steps[len(steps)-1] != e.State.Step {
			steps = append(steps, e.State.Step)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []workerapi.Step{workerapi.StepOpen, workerapi.StepReady, workerapi.StepFrozen, workerapi.StepStaged, workerapi.StepDone}
	if len(steps) != len(want) {
		t.Fatalf("steps %v, want %v", steps, want)
	}
	for i := range want {
		if steps[i] != want[i] {
			t.Fatalf("steps %v, want %v", steps, want)
		}
	}
	if err := p.source.Watch(t.Context(), id, seq, func(e workerapi.Event) error { t.Errorf("event %d is new", e.Seq); return nil }); err != nil {
		t.Error(err)
	}
}

func TestRequestsThatMakeNoSenseAreRefused(t *testing.T) {
	p := newPair(t)
	for what, change := range map[string]func(*workerapi.OpenRequest){
		"an id that climbs":        func(r *workerapi.OpenRequest) { r.Migration = "../x" },
		"no role":                  func(r *workerapi.OpenRequest) { r.Role = "" },
		"another host's session":   func(r *workerapi.OpenRequest) { r.Source.Host = "gamma" },
		"itself as its target":     func(r *workerapi.OpenRequest) { r.Target.Host = "alpha" },
		"no epoch":                 func(r *workerapi.OpenRequest) { r.Epoch = 0 },
		"a thousand rounds":        func(r *workerapi.OpenRequest) { r.Options.MaxRounds = 1000 },
		"a source left running":    func(r *workerapi.OpenRequest) { r.Options.SourceFinalState = migration.Running },
		"a workload with no name":  func(r *workerapi.OpenRequest) { r.Spec.Name = "" },
		"a downtime below nothing": func(r *workerapi.OpenRequest) { r.Options.Downtime = -1 },
	} {
		req := p.request(migration.Source)
		change(&req)
		if _, err := p.source.Open(t.Context(), req); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(p.world.Steps()) != 0 {
		t.Errorf("something was done: %v", p.world.Steps())
	}
}

func TestOneWorkloadIsInOneMigrationAtATime(t *testing.T) {
	p := newPair(t)
	p.open()
	second := p.request(migration.Source)
	second.Migration = "m-2"
	if _, err := p.source.Open(t.Context(), second); errs.KindOf(err) != errs.Conflict || errs.NextOf(err) == "" {
		t.Errorf("got %v", err)
	}
	p.abort()
}
