package session_test

import (
	"slices"
	"testing"

	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session"
)

func dry(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	source, target := p.request(migration.Source), p.request(migration.Target)
	source.DryRun, target.DryRun = true, true
	if _, err := p.target.Open(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if _, err := p.source.Open(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestADryRunSendsTwoRoundsAndFreezesNothing(t *testing.T) {
	p := dry(t)
	st := p.await(p.source, workerapi.StepReady)
	f := st.Progress.Forecast
	if f == nil || f.Ends == "" || st.Progress.Round != 2 || st.Progress.PagesSent == 0 || !st.DryRun {
		t.Fatalf("after %d rounds and %d pages: %+v", st.Progress.Round, st.Progress.PagesSent, f)
	}
	if err := p.source.CutOver(t.Context(), id, at); errs.KindOf(err) != errs.Conflict {
		t.Errorf("it was told to cut over: %v", err)
	}
	for what, r := range map[string]*session.Registry{"source": p.source, "target": p.target} {
		if _, err := r.Decide(t.Context(), id, migration.Commit, at+1); errs.KindOf(err) != errs.Conflict {
			t.Errorf("its %s was told COMMIT: %v", what, err)
		}
	}
	p.abort()
	for _, never := range []string{"alpha:dump", "alpha:freeze", "alpha:fence", "beta:restore"} {
		if slices.Contains(p.world.Steps(), never) {
			t.Errorf("it did %s", never)
		}
	}
	p.livesOnlyOn("alpha")
	p.nothingIsLent()
	p.retry() // and the real one goes through
}

// The record does not know it: what a coordinator that died has left is taken for aborted.
func TestADryRunThatNobodyWaitsForIsUndone(t *testing.T) {
	for _, restart := range []bool{false, true} {
		p := dry(t)
		p.await(p.source, workerapi.StepReady)
		if restart {
			p.restart("alpha")
			p.restart("beta")
		}
		for _, r := range []*session.Registry{p.source, p.target} {
			open := r.Unheard(0)
			if len(open) != 1 || !open[0].DryRun {
				t.Fatalf("open are %+v", open)
			}
			if err := r.Learn(t.Context(), id, migration.Aborted); err != nil {
				t.Error(err)
			}
		}
		p.livesOnlyOn("alpha")
		p.nothingIsLent()
	}
}
