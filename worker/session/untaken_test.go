package session_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session"
)

// errMute is what a worker gets of a keeper that is stopped.
var errMute = errs.New(errs.Conflict, "workload has a keeper already").WithNext("let it run")

// saysNotNow fails the test unless every call that concerns the session is to be made again.
func (p *pair) saysNotNow(r *session.Registry, role migration.Role) {
	p.t.Helper()
	calls := map[string]func() error{
		"open":      func() error { _, err := r.Open(p.t.Context(), p.request(role)); return err },
		"look":      func() error { _, err := r.Session(p.t.Context(), p.id); return err },
		"cut over":  func() error { return r.CutOver(p.t.Context(), p.id, at) },
		"commit":    func() error { _, err := r.Decide(p.t.Context(), p.id, migration.Commit, at+1); return err },
		"abort":     func() error { _, err := r.Decide(p.t.Context(), p.id, migration.Abort, at); return err },
		"reclaim":   func() error { _, err := r.Decide(p.t.Context(), p.id, migration.Reclaim, at+2); return err },
		"confirm":   func() error { _, err := r.Confirm(p.t.Context(), p.id, at+1); return err },
		"bandwidth": func() error { return r.SetBandwidth(p.t.Context(), p.id, 1) },
		"learn":     func() error { return r.Learn(p.t.Context(), p.id, migration.RolledBack) },
		"watch":     func() error { return r.Watch(p.t.Context(), p.id, 0, func(workerapi.Event) error { return nil }) },
	}
	for what, call := range calls {
		err := call()
		if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), errMute.Error()) || errs.NextOf(err) != "let it run" {
			p.t.Errorf("%s: %v (%s)", what, err, errs.NextOf(err))
		}
	}
	if s := r.States(); len(s) > 0 {
		p.t.Errorf("it says %+v", s)
	}
	again := p.request(role)
	again.Migration = "m-9"
	if _, err := r.Open(p.t.Context(), again); errs.KindOf(err) != errs.Conflict {
		p.t.Errorf("another migration of the workload: %v", err)
	}
}

// takenUp waits until a session is spoken for again.
func (p *pair) takenUp(r *session.Registry) {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		_, err := r.Session(p.t.Context(), p.id)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			p.t.Fatal(err)
		}
	}
}

func (p *pair) registry(host string) *session.Registry {
	if host == "alpha" {
		return p.source
	}
	return p.target
}

var roles = map[string]migration.Role{"alpha": migration.Source, "beta": migration.Target}

// A keeper that does not answer decides nothing: what it holds stays as it is, and the migration goes on when it answers.
func TestATreeWhoseKeeperDoesNotAnswerIsTakenUpWhenItDoes(t *testing.T) {
	for host, role := range roles {
		for _, v := range []migration.Verdict{migration.Commit, migration.Abort} {
			t.Run(host+" "+string(v), func(t *testing.T) {
				p := newPair(t)
				p.upTo(migration.Held)
				p.world.Fail(host+":find "+name, errMute)
				p.restart(host)
				p.saysNotNow(p.registry(host), role)
				if run, held := p.world.Running(name), p.world.Held(name); len(run) > 0 || !slices.Equal(held, []string{"alpha", "beta"}) {
					t.Fatalf("it runs on %v and is held on %v", run, held)
				}
				p.restart(host) // which changes nothing
				p.saysNotNow(p.registry(host), role)
				p.world.Fail(host+":find "+name, nil)
				p.takenUp(p.registry(host))
				p.carryOut(v)
			})
		}
	}
}

func TestAVerdictThatHadComeIsCarriedOutWhenTheKeeperAnswers(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	p.world.Fail("beta:accept", errBroken)
	if _, err := p.target.Decide(t.Context(), id, migration.Commit, at+1); err == nil {
		t.Fatal("it was released")
	}
	p.world.Fail("beta:accept", nil)
	p.world.Fail("beta:find "+name, errMute)
	p.restart("beta")
	p.saysNotNow(p.target, migration.Target)
	p.world.Fail("beta:find "+name, nil)
	p.takenUp(p.target)
	if st := p.state(p.target); st.Step != workerapi.StepReleased || !st.Alive {
		t.Errorf("the target is %s, alive %v: %s", st.Step, st.Alive, st.Error)
	}
	p.decide(p.source, migration.Commit)
	p.confirm(p.source)
	p.confirm(p.target)
	p.livesOnlyOn("beta")
}

func TestAKeeperThatDoesNotAnswerKeepsNoOtherTreeWaiting(t *testing.T) {
	p := newPair(t)
	p.upTo(migration.Held)
	other := p.alpha.Run("other", at)
	for _, role := range []migration.Role{migration.Target, migration.Source} {
		req := p.request(role)
		req.Migration, req.Spec.Name, req.Inventory.Workload, req.Inventory.Spec.Name = "m-2", "other", "other", "other"
		if _, err := p.registry(map[migration.Role]string{migration.Target: "beta", migration.Source: "alpha"}[role]).Open(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	answers := make(chan struct{})
	p.world.Before("alpha:find "+name, func() { <-answers })
	p.restart("alpha")
	if _, err := p.source.Session(t.Context(), p.id); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("the one that waits: %v", err)
	}
	st, err := p.source.Session(t.Context(), "m-2")
	if err != nil || st.Step != workerapi.StepFailed || p.alpha.Busy("other") || other.State() != "running" {
		t.Errorf("the other is %s (%s, %v), and is %s", st.Step, st.Error, err, other.State())
	}
	close(answers)
	p.takenUp(p.source)
	p.abort()
	p.livesOnlyOn("alpha")
}
