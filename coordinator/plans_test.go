package coordinator

import (
	"fmt"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// ends waits for a plan's end, over whatever changes of leader.
func (c *cluster) ends(name string) api.Plan {
	c.t.Helper()
	var last api.Plan
	c.waitFor("plan "+name+" ends", func() bool {
		return c.any().WatchPlan(c.t.Context(), name, func(p api.Plan) error { last = p; return nil }) == nil
	})
	return last
}

func TestADrainEmptiesAHostThoughTheLeaderDies(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for _, h := range []string{"alpha", "beta", "gamma"} {
			c.addHost(h).copyFor = 2 * time.Second
		}
		for i := range 6 {
			c.run(fmt.Sprintf("w%d", i), "alpha")
		}
		dry := must(c.any().Drain(t.Context(), api.DrainRequest{Host: "alpha", DryRun: true}))(t)
		if dry.Plan != "" || len(dry.Items) != 6 {
			t.Errorf("a dry run says %+v", dry)
		}
		r := must(c.any().Drain(t.Context(), api.DrainRequest{Host: "alpha", MaxParallel: 2}))(t)
		c.waitFor("the first has moved", func() bool {
			return len(must(c.any().Migrations(t.Context(), ""))(t)) > 2
		})
		c.kill(c.leader())
		p := c.ends(r.Plan)
		if p.State != api.PlanDone {
			t.Errorf("it ended %s: %+v", p.State, p.Items)
		}
		for i := range 6 {
			if on := c.world.runsOn(fmt.Sprintf("w%d", i)); on != "beta" && on != "gamma" {
				t.Errorf("w%d runs on %q", i, on)
			}
		}
		for _, h := range must(c.any().Hosts(t.Context()))(t) {
			if h.Cordoned != (h.Name == "alpha") {
				t.Errorf("%s is cordoned: %v", h.Name, h.Cordoned)
			}
		}
		_, err := c.any().Migrate(t.Context(), api.MigrateRequest{Workload: "w0", To: "alpha"})
		wantKind(t, "a move to a drained host", err, errs.Conflict)
	})
}

func TestAPlanSaysWhatCannotMove(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		beta := c.addHost("beta")
		c.run("redis", "alpha")
		beta.findings = []workerapi.Finding{{Check: "cpu", Host: "beta", Verdict: workerapi.NoGo, Detail: "avx512f is missing"}}
		must(c.any().Apply(t.Context(), api.PlanSpec{Name: "p", Migrations: []api.PlanItem{{Workload: "redis", To: "beta"}}}))(t)
		p := c.ends("p")
		if p.State != api.PlanFailed || p.Items[0].State != "failed" || p.Items[0].Reason == "" {
			t.Errorf("it ended %s: %+v", p.State, p.Items)
		}
		_, err := c.any().Apply(t.Context(), api.PlanSpec{Name: "q", Migrations: []api.PlanItem{{Workload: "nginx", To: "beta"}}})
		wantKind(t, "a plan with an unknown workload", err, errs.NotFound)
	})
}

func TestAPlanIsPausedResumedAndCancelled(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha").copyFor = 10 * time.Second
		c.addHost("beta")
		spec := api.PlanSpec{Name: "p", Parallel: 1}
		for i := range 3 {
			name := fmt.Sprintf("w%d", i)
			c.run(name, "alpha")
			spec.Migrations = append(spec.Migrations, api.PlanItem{Workload: name, To: "beta"})
		}
		must(c.any().Apply(t.Context(), spec))(t)
		count := func() int { return len(must(c.any().Migrations(t.Context(), ""))(t)) }
		c.waitFor("it has begun", func() bool { return count() == 1 })
		must(c.any().SteerPlan(t.Context(), "p", api.PlanPaused))(t)
		time.Sleep(time.Minute) //nolint:forbidigo // a bubble's time
		if n := count(); n != 1 {
			t.Errorf("paused, it began %d migrations", n)
		}
		must(c.any().SteerPlan(t.Context(), "p", api.PlanRunning))(t)
		c.waitFor("it goes on", func() bool { return count() == 2 })
		must(c.any().SteerPlan(t.Context(), "p", api.PlanCancelled))(t)
		p := c.ends("p")
		if p.State != api.PlanCancelled || c.world.runsOn("w2") != "alpha" {
			t.Errorf("it ended %s; w2 runs on %s", p.State, c.world.runsOn("w2"))
		}
	})
}

func TestAHostThatRebootedLosesItsWorkloadsInTheRecord(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		alpha := c.addHost("alpha")
		c.run("redis", "alpha")
		c.world.mu.Lock()
		alpha.boot, alpha.trees["redis"].state = "boot-2", workload.Lost
		c.world.mu.Unlock()
		c.waitFor("the record knows", func() bool {
			w := must(c.any().Workload(t.Context(), "redis"))(t)
			return w.Status.State == workload.Exited
		})
		c.addHost("beta")
		_, err := c.any().Migrate(t.Context(), api.MigrateRequest{Workload: "redis", To: "beta"})
		wantKind(t, "a move of what is lost", err, errs.Conflict)
	})
}
