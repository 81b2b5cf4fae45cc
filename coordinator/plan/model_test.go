package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"drover/coordinator/api"
	"drover/internal/migration"
)

// cluster carries out what Next says, as the coordinator does, with moves that end as they are drawn to. It loses actions, as
// a leader that dies does.
type cluster struct {
	t *rapid.T
	*world
	plan   api.Plan
	moves  int
	failed bool // some move was rolled back
}

func (c *cluster) carryOut(actions []Action) {
	for i, a := range actions {
		switch a := a.(type) {
		case Mark:
			if a.Index == len(c.plan.Items) {
				c.plan.Items = append(c.plan.Items, a.Item)
				continue
			}
			if was := c.plan.Items[a.Index].State; was != a.Was {
				c.t.Fatalf("mark of %s expects %s, it is %s", a.Item.Workload, a.Was, was)
			}
			c.plan.Items[a.Index] = a.Item
		case Start:
			c.startMove(a)
		case SetState:
			if a.From != c.plan.State || i != len(actions)-1 {
				c.t.Fatalf("%s -> %s in state %s, action %d of %d", a.From, a.To, c.plan.State, i+1, len(actions))
			}
			if a.From == api.PlanScheduled {
				c.plan.Started = c.Now
			}
			if a.Items != nil {
				c.plan.Items = a.Items
			}
			c.plan.State = a.To
		case Cordon:
			c.host(a.Host, func(h *api.Host) { h.Cordoned = true })
		}
	}
}

func (c *cluster) startMove(a Start) {
	w := &c.Workloads[slices.IndexFunc(c.Workloads, func(w api.Workload) bool { return w.Name == a.Item.Workload })]
	if w.Migration != "" {
		c.t.Fatalf("%s is moved twice at once", w.Name)
	}
	if w.Owner == a.To {
		c.t.Fatalf("%s is moved to where it is", w.Name)
	}
	c.moves++
	id := migration.ID(fmt.Sprintf("m-%d", c.moves))
	w.Migration = id
	c.Migrations = append(c.Migrations, api.Migration{
		ID: id, Workload: w.Name, Source: w.Owner, Target: a.To, Plan: c.plan.Spec.Name, Phase: migration.Copying,
		Transitions: []api.Transition{{Phase: migration.Admitted, Time: c.Now}},
	})
	if rapid.IntRange(0, 9).Draw(c.t, "leader dies") == 0 {
		return // before it said which migration moves the item
	}
	if was := c.plan.Items[a.Index].State; was != a.Was {
		c.t.Fatalf("start of %s expects %s, it is %s", a.Item.Workload, a.Was, was)
	}
	a.Item.Migration = id
	c.plan.Items[a.Index] = a.Item
}

// endSome ends some of the moves under way.
func (c *cluster) endSome() {
	for i := range c.Migrations {
		m := &c.Migrations[i]
		if m.Phase.Final() || rapid.Bool().Draw(c.t, "goes on") {
			continue
		}
		w := &c.Workloads[slices.IndexFunc(c.Workloads, func(w api.Workload) bool { return w.Name == m.Workload })]
		w.Migration = ""
		m.Phase = migration.RolledBack
		if rapid.IntRange(0, 4).Draw(c.t, "fails") > 0 {
			m.Phase, w.Owner = migration.Done, m.Target
		} else {
			c.failed = true
		}
		m.Transitions = append(m.Transitions, api.Transition{Phase: m.Phase, Time: c.Now})
	}
}

// obeysLimits counts moves under way against the plan's limits; only this plan moves anything here.
func (c *cluster) obeysLimits() {
	all, source, target := 0, map[string]int{}, map[string]int{}
	for _, m := range c.Migrations {
		if m.Phase.Final() {
			continue
		}
		all++
		source[m.Source]++
		target[m.Target]++
		if source[m.Source] > c.plan.Spec.PerSource || target[m.Target] > c.plan.Spec.PerTarget || all > c.plan.Spec.Parallel {
			c.t.Fatalf("%d at once, %v from, %v to; the limits are %d, %d and %d", all, source, target,
				c.plan.Spec.Parallel, c.plan.Spec.PerSource, c.plan.Spec.PerTarget)
		}
	}
}

// run lets a plan go to its end and says whether it got there.
func (c *cluster) run() {
	for range 2000 {
		if !Active(c.plan) {
			return
		}
		c.carryOut(Next(c.plan, c.State))
		c.obeysLimits()
		c.Now = c.Now.Add(time.Second)
		c.endSome()
	}
	c.t.Fatalf("the plan never ends: %+v", c.plan)
}

func drawCluster(t *rapid.T) *cluster {
	c := &cluster{t: t, world: newWorld()}
	for i := range rapid.IntRange(1, 12).Draw(t, "workloads") {
		c.on(rapid.SampledFrom([]string{"alpha", "beta", "gamma"}).Draw(t, "host"), fmt.Sprintf("w%d", i))
	}
	return c
}

func drawLimits(t *rapid.T, s *api.PlanSpec) {
	s.Parallel = rapid.IntRange(1, 5).Draw(t, "parallel")
	s.PerSource = rapid.IntRange(1, 3).Draw(t, "per source")
	s.PerTarget = rapid.IntRange(1, 3).Draw(t, "per target")
}

func TestAnyPlanEndsWithinItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		spec := api.PlanSpec{Name: "p", OnFailure: rapid.SampledFrom([]string{"continue", "stop", "move-back"}).Draw(t, "on failure")}
		drawLimits(t, &spec)
		before := map[string]string{}
		for _, w := range c.Workloads {
			before[w.Name] = w.Owner
			to := rapid.SampledFrom([]string{Anywhere, "alpha", "beta", "gamma", "delta"}).Draw(t, "to")
			spec.Migrations = append(spec.Migrations, api.PlanItem{Workload: w.Name, To: to})
		}
		var err error
		if c.plan, err = New(spec, noon); err != nil {
			t.Fatal(err)
		}
		c.run()
		if done := c.plan.State == api.PlanDone; done == c.failed {
			t.Fatalf("the plan ended %s, but a move failed: %v", c.plan.State, c.failed)
		}
		for _, item := range c.plan.Items {
			i := slices.IndexFunc(c.Workloads, func(w api.Workload) bool { return w.Name == item.Workload })
			owner := c.Workloads[i].Owner
			switch {
			case item.State == moved && owner != item.To, item.State == movedBack && owner != before[item.Workload]:
				t.Fatalf("%s is said to be %s to %s, but is on %s", item.Workload, item.State, item.To, owner)
			case spec.OnFailure == "move-back" && c.failed && item.State == moved && item.From != "":
				t.Fatalf("%s was left on %s when the plan was undone", item.Workload, owner)
			}
		}
	})
}

func TestAnyDrainEmptiesItsHostOrSaysWhatIsLeft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		spec := Drain(api.DrainRequest{Host: "alpha"})
		drawLimits(t, &spec)
		var err error
		if c.plan, err = New(spec, noon); err != nil {
			t.Fatal(err)
		}
		c.run()
		left := newDecision(c.plan, c.State).live("alpha")
		if (left == 0) != (c.plan.State == api.PlanDone) {
			t.Fatalf("the drain ended %s with %d workloads left", c.plan.State, left)
		}
		for _, w := range c.Workloads {
			i := slices.IndexFunc(c.plan.Items, func(i api.PlanResult) bool { return i.Workload == w.Name })
			if w.Owner == "alpha" && (i < 0 || c.plan.Items[i].State != failed || c.plan.Items[i].Reason == "") {
				t.Fatalf("%s is left and the plan does not say why: %+v", w.Name, c.plan.Items)
			}
		}
	})
}
