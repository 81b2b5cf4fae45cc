package moves

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/testenv/host/hosttest"
)

var coordinators = []string{"ceres", "pallas", "vesta"}

// apply puts a plan into the record that moves services to a host, one after the other and slowly.
func (g *ground) apply(t *testing.T, name, to string, services ...*service) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nparallel: 1\nmigrations:\n", name)
	for _, s := range services {
		fmt.Fprintf(&b, "  - {workload: %s, to: %s, options: {bandwidth: 3MB, compression: none, max_rounds: 1, probation: 100ms}}\n", s.name, to)
	}
	const at = "/srv/plan.yaml"
	if err := os.WriteFile(g.Coordinators[0].Path(at), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	g.drover(t, "apply", at, "--detach")
}

// planned returns the plan once it is as wanted.
func (g *ground) planned(t *testing.T, name, what string, wanted func(api.Plan) bool) (p api.Plan) {
	t.Helper()
	hosttest.Eventually(t, "plan "+name+" "+what, func() bool {
		p = api.Plan{}
		return g.JSON(t.Context(), &p, "plan", "show", name) == nil && wanted(p)
	})
	return p
}

func ended(p api.Plan) bool { return !p.Ended.IsZero() }

func itemIs(n int, state string) func(api.Plan) bool {
	return func(p api.Plan) bool { return p.Items[n].State == state }
}

func (g *ground) several(t *testing.T, on string, n int) (all []*service) {
	t.Helper()
	for i := range n {
		all = append(all, g.start(t, fmt.Sprintf("counter-%d", i), on, i, small))
	}
	return all
}

func TestAPlanGoesOnUnderTheNextLeader(t *testing.T) {
	g := newGround(t, coordinators, "alpha", "beta")
	all := g.several(t, "alpha", 3)
	g.apply(t, "friday", "beta", all...)
	g.planned(t, "friday", "moves its first", itemIs(0, "moving"))
	if err := g.leader(t).Daemon.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := g.planned(t, "friday", "has ended", ended)
	if p.State != api.PlanDone {
		t.Errorf("the plan ended %s: %+v", p.State, p.Items)
	}
	g.mend(t)
	for _, s := range all {
		s.lives(t, "beta")
		s.end(t)
	}
	g.nothingLeft(t, spare)
}

func TestAPlanIsPausedResumedAndCancelled(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	all := g.several(t, "alpha", 3)
	g.apply(t, "friday", "beta", all...)
	g.planned(t, "friday", "moves its first", itemIs(0, "moving"))
	g.drover(t, "plan", "pause", "friday")
	p := g.planned(t, "friday", "has moved its first", itemIs(0, "moved"))
	if p.State != api.PlanPaused || p.Items[1].State != "waiting" {
		t.Errorf("paused, it is %s and its second move is %s", p.State, p.Items[1].State)
	}
	g.drover(t, "plan", "resume", "friday")
	g.planned(t, "friday", "moves its second", itemIs(1, "moving"))
	g.drover(t, "plan", "cancel", "friday")
	p = g.planned(t, "friday", "has ended", ended)
	if p.State != api.PlanCancelled || p.Items[2].State == "moved" {
		t.Errorf("cancelled, it is %s and its third move is %s", p.State, p.Items[2].State)
	}
	g.outcome(t, p.Items[1].Migration)
	for i, home := range []string{"beta", "alpha", "alpha"} {
		all[i].lives(t, home)
		all[i].end(t)
	}
	g.nothingLeft(t, 0)
}

func TestADrainMovesWhatCanMoveAndNamesTheRest(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "movable", "alpha", 0, small)
	g.drover(t, "run", "rooted", "--host", "alpha", "--", "sh", "-c", "exec sleep infinity 9>/srv/only-here")

	out, err := g.Drover(t.Context(), "drain", "alpha")
	if err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("the drain of a host that cannot be emptied: %v", err)
	}
	if !strings.Contains(out, "rooted") || !strings.Contains(out, "/srv/only-here") {
		t.Errorf("it does not say what stays and why:\n%s", out)
	}
	s.lives(t, "beta")

	if _, err := g.Drover(t.Context(), "migrate", s.name, "--to", "alpha"); err == nil || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("a move to a cordoned host: %v", err)
	}
	g.drover(t, "uncordon", "alpha")
	if _, err := g.Migrate(t.Context(), nil, s.name, "alpha", "--probation", "100ms"); err != nil {
		t.Error(err)
	}
	s.lives(t, "alpha")
	g.drover(t, "rm", "--force", "rooted")
	s.end(t)
	g.nothingLeft(t, 0)
}

func TestADrainBeginsWhenItWasToldTo(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "movable", "alpha", 0, small)
	var report api.DrainReport
	if err := g.JSON(t.Context(), &report, "drain", "alpha", "--at", "+4s", "--probation", "100ms"); err != nil {
		t.Fatal(err)
	}
	if p := g.planned(t, report.Plan, "is there", func(api.Plan) bool { return true }); p.State != api.PlanScheduled {
		t.Errorf("before its time it is %s", p.State)
	}
	p := g.planned(t, report.Plan, "has ended", ended)
	if p.State != api.PlanDone || p.Started.Before(p.Spec.StartAt) {
		t.Errorf("it ended %s and began at %s, told to at %s", p.State, p.Started, p.Spec.StartAt)
	}
	s.lives(t, "beta")
	g.drover(t, "uncordon", "alpha")
	s.end(t)
	g.nothingLeft(t, 0)
}
