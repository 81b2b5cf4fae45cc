package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/internal/workload"
)

var noon = time.Date(2026, 3, 7, 12, 0, 0, 0, time.UTC)

const mib = 1 << 20

// world is a State to build tests from: four hosts with 8 GiB free each.
type world struct{ State }

func newWorld() *world {
	w := &world{State{Now: noon, Refused: map[Move]string{}}}
	for _, name := range []string{"alpha", "beta", "delta", "gamma"} {
		h := api.Host{Name: name, State: "up"}
		h.Facts.MemoryFree, h.Facts.MemoryTotal, h.Facts.Engine.Version = 8<<30, 16<<30, "4.2.1"
		w.Hosts = append(w.Hosts, h)
	}
	return w
}

func (w *world) host(name string, change func(*api.Host)) *world {
	i := slices.IndexFunc(w.Hosts, func(h api.Host) bool { return h.Name == name })
	change(&w.Hosts[i])
	return w
}

// on puts running workloads of 64 MiB on a host.
func (w *world) on(host string, names ...string) *world {
	for _, n := range names {
		x := api.Workload{Name: n, Owner: host, Epoch: 1}
		x.Status.State, x.Status.RSS = workload.Running, 64*mib
		w.Workloads = append(w.Workloads, x)
	}
	return w
}

func (w *world) workload(name string, change func(*api.Workload)) *world {
	i := slices.IndexFunc(w.Workloads, func(x api.Workload) bool { return x.Name == name })
	change(&w.Workloads[i])
	return w
}

// move adds a migration "m-<n>" that began n seconds after noon.
func (w *world) move(plan, name, from, to string, phase migration.Phase) *world {
	n := len(w.Migrations)
	at := noon.Add(time.Duration(n) * time.Second)
	w.Migrations = append(w.Migrations, api.Migration{
		ID: migration.ID(fmt.Sprintf("m-%d", n)), Workload: name, Source: from, Target: to, Phase: phase, Plan: plan,
		Transitions: []api.Transition{{Phase: migration.Admitted, Time: at}, {Phase: phase, Time: at}},
	})
	if phase == migration.RolledBack {
		w.Migrations[n].Reason = "restore failed"
	}
	return w
}

// items writes a plan's items as "redis beta", with a state and more as needed: "redis beta moved from alpha m-0".
func running(items ...string) api.Plan {
	p := api.Plan{Spec: withDefaults(api.PlanSpec{Name: "p"}), State: api.PlanRunning, Started: noon}
	for _, text := range items {
		f := append(strings.Fields(text), "", "", "", "", "")
		item := api.PlanResult{PlanItem: api.PlanItem{Workload: f[0], To: f[1]}, State: f[2], Migration: migration.ID(f[5])}
		if item.State == "" {
			item.State = waiting
		}
		if f[3] == "from" {
			item.From = f[4]
		}
		p.Items = append(p.Items, item)
		p.Spec.Migrations = append(p.Spec.Migrations, item.PlanItem)
	}
	return p
}

func with(p api.Plan, change func(*api.Plan)) api.Plan { change(&p); return p }

// draining is a running drain of alpha.
func draining(items ...string) api.Plan {
	return with(running(items...), func(p *api.Plan) { p.Spec.Drain, p.Spec.Migrations = "alpha", nil })
}

// said writes actions as lines to compare with.
func said(actions []Action) string {
	var lines []string
	for _, a := range actions {
		switch a := a.(type) {
		case Start:
			lines = append(lines, fmt.Sprintf("start %s (%s) to %s", a.Item.Workload, a.Was, a.To))
		case Mark:
			lines = append(lines, strings.TrimSuffix(fmt.Sprintf("mark %d %s %s: %s", a.Index, a.Item.Workload, a.Item.State, a.Item.Reason), ": "))
		case SetState:
			line := fmt.Sprintf("%s -> %s", a.From, a.To)
			if !a.NextRun.IsZero() {
				line += " at " + a.NextRun.Format(time.DateTime)
			}
			for _, i := range a.Items {
				line += fmt.Sprintf(", %s %s %s", i.Workload, i.To, i.State)
			}
			lines = append(lines, line)
		case Cordon:
			lines = append(lines, "cordon "+a.Host)
		case Abort:
			lines = append(lines, fmt.Sprintf("abort %s: %s", a.Migration, a.Reason))
		}
	}
	return strings.Join(lines, "\n")
}

func lines(l ...string) string { return strings.Join(l, "\n") }

type rule struct {
	why   string
	plan  api.Plan
	state *world
	want  string
}

func check(t *testing.T, rules []rule) {
	t.Helper()
	for _, r := range rules {
		if got := said(Next(r.plan, r.state.State)); got != r.want {
			t.Errorf("%s: got\n%s\nwant\n%s", r.why, indent(got), indent(r.want))
		}
	}
}

func indent(s string) string { return "\t" + strings.ReplaceAll(s, "\n", "\n\t") }

func TestAPlanStartsWhenItsTimeHasCome(t *testing.T) {
	scheduled := func(at time.Time) api.Plan {
		return with(running("redis beta"), func(p *api.Plan) { p.State, p.NextRun = api.PlanScheduled, at })
	}
	check(t, []rule{
		{"its time has come", scheduled(noon), newWorld().on("alpha", "redis"), "scheduled -> running, redis beta waiting"},
		{"its time is yet to come", scheduled(noon.Add(time.Second)), newWorld().on("alpha", "redis"), ""},
		{"a run that follows another starts afresh",
			with(running("redis beta failed from alpha m-0"), func(p *api.Plan) { p.State, p.NextRun = api.PlanScheduled, noon }),
			newWorld().on("alpha", "redis"), "scheduled -> running, redis beta waiting"},
	})
}

func TestItemsStartInOrderAsLimitsAllow(t *testing.T) {
	limits := func(all, source, target int, items ...string) api.Plan {
		return with(running(items...), func(p *api.Plan) { p.Spec.Parallel, p.Spec.PerSource, p.Spec.PerTarget = all, source, target })
	}
	five := func() *world { return newWorld().on("alpha", "a", "b", "c").on("beta", "d", "e") }
	check(t, []rule{
		{"all at once within the limits", limits(9, 9, 9, "a gamma", "b gamma"), five(), lines("start a (waiting) to gamma", "start b (waiting) to gamma")},
		{"no more than parallel", limits(1, 9, 9, "a gamma", "b gamma"), five(), "start a (waiting) to gamma"},
		{"those under way count", limits(2, 9, 9, "a gamma moving from alpha m-0", "b gamma", "c gamma"), five().move("p", "a", "alpha", "gamma", migration.Copying), "start b (waiting) to gamma"},
		{"a full source lets later items pass", limits(9, 1, 9, "a gamma", "b gamma", "d gamma"), five(), lines("start a (waiting) to gamma", "start d (waiting) to gamma")},
		{"a full target lets later items pass", limits(9, 9, 1, "a gamma", "b gamma", "c delta"), five(), lines("start a (waiting) to gamma", "start c (waiting) to delta")},
		{"another's move counts for its hosts", limits(9, 1, 1, "a gamma", "d delta"), five().move("", "b", "alpha", "beta", migration.Copying).move("other", "e", "beta", "delta", migration.Held), ""},
		{"another's move does not count in all", limits(1, 9, 9, "a gamma"), five().move("", "b", "alpha", "beta", migration.Copying), "start a (waiting) to gamma"},
		{"ended moves do not count", limits(1, 1, 1, "a gamma"), five().move("", "b", "alpha", "gamma", migration.Done).move("", "b", "alpha", "gamma", migration.RolledBack), "start a (waiting) to gamma"},
	})
}

func TestAMoveThatIsBeingAdmittedCountsAndIsNotStartedAgain(t *testing.T) {
	one := func(p api.Plan) api.Plan { return with(p, func(p *api.Plan) { p.Spec.Parallel = 1 }) }
	starting := func(w *world, name, host, plan string) *world {
		w.Starting = map[Move]string{{name, host}: plan}
		return w
	}
	two := func() *world { return newWorld().on("alpha", "a", "b") }
	back := with(running("a gamma moved from alpha x-1"), func(p *api.Plan) { p.State = api.PlanMovingBack })
	check(t, []rule{
		{"a later item is being admitted", one(running("a gamma", "b gamma")), starting(two(), "b", "gamma", "p"), ""},
		{"another plan's counts for its hosts only", one(running("a gamma", "b gamma")), starting(two(), "b", "gamma", "other"), "start a (waiting) to gamma"},
		{"it is in the record already", with(running("a gamma moving from alpha m-0", "b gamma"), func(p *api.Plan) { p.Spec.Parallel = 2 }),
			starting(two().workload("a", func(w *api.Workload) { w.Migration = "m-0" }).move("p", "a", "alpha", "gamma", migration.Admitted), "a", "gamma", "p"), "start b (waiting) to gamma"},
		{"a drain does not end meanwhile", draining("a anywhere skipped"), starting(newWorld().on("alpha", "a"), "a", "beta", "p"), ""},
		{"nor does moving back", back, starting(newWorld().on("gamma", "a"), "a", "alpha", "p"), ""},
	})
}

func TestWhereAnItemGoes(t *testing.T) {
	check(t, []rule{
		{"to the host it names, even a cordoned one", running("a beta"), newWorld().on("alpha", "a").host("beta", func(h *api.Host) { h.Cordoned = true }), "start a (waiting) to beta"},
		{"anywhere is the best host", running("a anywhere"), newWorld().on("alpha", "a").host("gamma", func(h *api.Host) { h.Facts.MemoryFree = 12 << 30 }), "start a (waiting) to gamma"},
		{"anywhere is spread", running("a anywhere", "b anywhere"), newWorld().on("alpha", "a", "b"), lines("start a (waiting) to beta", "start b (waiting) to delta")},
		{"anywhere is never a cordoned host", running("a anywhere"), newWorld().on("alpha", "a").host("beta", func(h *api.Host) { h.Cordoned = true }), "start a (waiting) to delta"},
		{"anywhere is not where the doctor refused", running("a anywhere"), newWorld().on("alpha", "a").refuse("a", "beta", "no avx2"), "start a (waiting) to delta"},
		{"the named host, refused", running("a beta"), newWorld().on("alpha", "a").refuse("a", "beta", "no avx2"), lines("mark 0 a failed: beta: no avx2", "running -> failed")},
		{"the named host is silent: it may come back", running("a beta"), newWorld().on("alpha", "a").host("beta", silent), "mark 0 a waiting: beta: it is silent"},
		{"no such host", running("a omega"), newWorld().on("alpha", "a"), lines("mark 0 a failed: there is no host omega", "running -> failed")},
		{"every host refused", running("a anywhere"), newWorld().on("alpha", "a").refuse("a", "beta", "x").refuse("a", "gamma", "y").refuse("a", "delta", "z"),
			lines("mark 0 a failed: no host can take it: alpha: it is there already; beta: x; delta: z; gamma: y", "running -> failed")},
		{"memory promised to an admitted move is not given twice", running("b beta"),
			newWorld().on("alpha", "a", "b").workload("a", func(w *api.Workload) { w.Status.RSS = 3 << 30 }).workload("b", func(w *api.Workload) { w.Status.RSS = 2 << 30 }).move("", "a", "alpha", "beta", migration.Admitted),
			"mark 0 b waiting: beta: 8192 MiB free, but 6208 MiB of it is promised to moves under way; 4160 MiB needed"},
	})
}

func silent(h *api.Host) { h.State = "silent" }

func (w *world) refuse(name, host, why string) *world {
	w.Refused[Move{name, host}] = why
	return w
}

func TestWhatNeedNotOrCannotBeMoved(t *testing.T) {
	state := func(s workload.State) *world {
		return newWorld().on("alpha", "a").workload("a", func(w *api.Workload) { w.Status.State = s })
	}
	check(t, []rule{
		{"it is there already", running("a alpha"), newWorld().on("alpha", "a"), lines("mark 0 a moved: it was on alpha already", "running -> done")},
		{"no such workload", running("a beta"), newWorld(), lines("mark 0 a failed: there is no workload of that name", "running -> failed")},
		{"it has exited", running("a beta"), state(workload.Exited), lines("mark 0 a failed: it has exited: there is nothing to move", "running -> failed")},
		{"it is lost", running("a beta"), state(workload.Lost), lines("mark 0 a failed: its host does not answer, or was rebooted: there is nothing to move", "running -> failed")},
		{"a stopped one moves", running("a beta"), state(workload.Stopped), "start a (waiting) to beta"},
		{"someone else moves it", running("a beta"), newWorld().on("alpha", "a").workload("a", func(w *api.Workload) { w.Migration = "x-1" }), "mark 0 a waiting: migration x-1 moves it now"},
	})
}

func TestItemsFollowTheirMigrations(t *testing.T) {
	check(t, []rule{
		{"under way", running("a beta moving from alpha m-0"), newWorld().on("alpha", "a").move("p", "a", "alpha", "beta", migration.Held), ""},
		{"committed is not yet moved", running("a beta moving from alpha m-0"), newWorld().on("beta", "a").move("p", "a", "alpha", "beta", migration.Released), ""},
		{"done", running("a beta moving from alpha m-0"), newWorld().on("beta", "a").move("p", "a", "alpha", "beta", migration.Done), lines("mark 0 a moved", "running -> done")},
		{"rolled back", running("a beta moving from alpha m-0"), newWorld().on("alpha", "a").move("p", "a", "alpha", "beta", migration.RolledBack), lines("mark 0 a failed: restore failed", "running -> failed")},
		{"a leader died after it began the move", running("a anywhere"), newWorld().on("alpha", "a").move("p", "a", "alpha", "gamma", migration.Copying), "mark 0 a moving"},
		{"a leader died, and the move is over", running("a anywhere"), newWorld().on("gamma", "a").move("p", "a", "alpha", "gamma", migration.Done), lines("mark 0 a moving", "mark 0 a moved", "running -> done")},
		{"a move of an earlier run is not this one's", with(running("a anywhere"), func(p *api.Plan) { p.Started = noon.Add(time.Hour) }), newWorld().on("gamma", "a").move("p", "a", "alpha", "gamma", migration.Done), "start a (waiting) to alpha"},
		{"a move that never was begins again", running("a beta moving from alpha m-7"), newWorld().on("alpha", "a"), lines("mark 0 a waiting", "start a (waiting) to beta")},
		{"a move that is forgotten but happened", running("a beta moving from alpha m-7"), newWorld().on("beta", "a"), lines("mark 0 a moved", "running -> done")},
	})
}

func TestWhatAFailureDoes(t *testing.T) {
	on := func(failure string, items ...string) api.Plan {
		return with(running(items...), func(p *api.Plan) { p.Spec.OnFailure = failure })
	}
	some := func() *world { return newWorld().on("alpha", "a", "b").on("beta", "c") }
	items := []string{"c gamma moved from beta m-9", "a gamma failed from alpha m-8", "b gamma"}
	moved := func() *world { return some().workload("c", func(w *api.Workload) { w.Owner = "gamma" }) }
	check(t, []rule{
		{"continue goes on", on("continue", items...), moved(), "start b (waiting) to gamma"},
		{"continue ends failed all the same", on("continue", "a gamma failed", "b gamma moved"), some(), "running -> failed"},
		{"stop begins nothing more", on("stop", items...), moved(), lines("mark 2 b skipped: the plan stopped when a failed", "running -> failed")},
		{"stop waits for what is under way", on("stop", "a gamma failed", "b gamma moving from alpha m-0"), some().move("p", "b", "alpha", "gamma", migration.Copying), ""},
		{"move-back goes over to moving back", on("move-back", items...), moved(), lines("mark 2 b skipped: the plan stopped when a failed", "running -> moving-back")},
		{"move-back waits for what is under way", on("move-back", "a gamma failed", "b gamma moving from alpha m-0"), some().move("p", "b", "alpha", "gamma", migration.Copying), ""},
		{"nothing to move back", on("move-back", "a gamma failed", "b alpha moved"), some(), "running -> failed"},
		{"no failure, no moving back", on("move-back", "c gamma moved from beta m-9"), moved(), "running -> done"},
	})
}

func TestMovingBackUndoesTheLastFirst(t *testing.T) {
	back := func(items ...string) api.Plan {
		return with(running(items...), func(p *api.Plan) {
			p.State, p.Spec.OnFailure, p.Spec.Deadline, p.Started = api.PlanMovingBack, "move-back", time.Second, noon.Add(-time.Hour)
		})
	}
	two := []string{"a gamma moved from alpha x-1", "b gamma moved from beta x-2", "c gamma failed from beta x-3"}
	there := func() *world { return newWorld().on("gamma", "a", "b").on("beta", "c") }
	check(t, []rule{
		{"the last first, whatever the deadline", back(two...), there(), lines("start b (moved) to beta", "start a (moved) to alpha")},
		{"within the limits", with(back(two...), func(p *api.Plan) { p.Spec.PerSource = 1 }), there(), "start b (moved) to beta"},
		{"back", back("a gamma moving from alpha m-0"), newWorld().on("alpha", "a").move("p", "a", "gamma", "alpha", migration.Done), lines("mark 0 a moved-back", "moving-back -> failed")},
		{"not back", back("a gamma moving from alpha m-0"), newWorld().on("gamma", "a").move("p", "a", "gamma", "alpha", migration.RolledBack), lines("mark 0 a failed: could not be moved back: restore failed", "moving-back -> failed")},
		{"a leader died after it began", back("a gamma moved from alpha x-1"), newWorld().on("gamma", "a").move("p", "a", "gamma", "alpha", migration.Copying), "mark 0 a moving"},
		{"to a cordoned host too", back("a gamma moved from alpha x-1"), newWorld().on("gamma", "a").host("alpha", func(h *api.Host) { h.Cordoned = true }), "start a (moved) to alpha"},
		{"its host is silent", back("a gamma moved from alpha x-1"), newWorld().on("gamma", "a").host("alpha", silent), "mark 0 a moved: waits to be moved back: alpha: it is silent"},
		{"its host refuses it now", back("a gamma moved from alpha x-1"), newWorld().on("gamma", "a").refuse("a", "alpha", "no room"), lines("mark 0 a failed: could not be moved back: alpha: no room", "moving-back -> failed")},
		{"someone moved it on", back("a gamma moved from alpha x-1"), newWorld().on("delta", "a"), lines("mark 0 a failed: could not be moved back: it is on delta now", "moving-back -> failed")},
		{"what was there already stays", back("a gamma moved"), newWorld().on("gamma", "a"), "moving-back -> failed"},
	})
}

func TestAfterTheDeadlineNothingBegins(t *testing.T) {
	late := func(items ...string) api.Plan {
		return with(running(items...), func(p *api.Plan) { p.Spec.Deadline, p.Started = time.Minute, noon.Add(-time.Minute) })
	}
	check(t, []rule{
		{"what waits is skipped", late("a gamma"), newWorld().on("alpha", "a"), lines("mark 0 a skipped: the deadline passed", "running -> failed")},
		{"what moves goes on", late("a gamma moving from alpha m-0", "b gamma"), newWorld().on("alpha", "a", "b").move("p", "a", "alpha", "gamma", migration.Copying), "mark 1 b skipped: the deadline passed"},
		{"a second before it", with(late("a gamma"), func(p *api.Plan) { p.Started = noon.Add(-59 * time.Second) }), newWorld().on("alpha", "a"), "start a (waiting) to gamma"},
	})
}

func TestPausedAndCancelledPlansBeginNothing(t *testing.T) {
	as := func(s api.PlanState, items ...string) api.Plan {
		return with(running(items...), func(p *api.Plan) { p.State = s })
	}
	w := func(phase migration.Phase) *world {
		return newWorld().on("alpha", "a", "b").move("p", "a", "alpha", "gamma", phase)
	}
	items := []string{"a gamma moving from alpha m-0", "b gamma"}
	check(t, []rule{
		{"paused: moves go on, nothing begins", as(api.PlanPaused, items...), w(migration.Copying), ""},
		{"paused: ends are noted", as(api.PlanPaused, items...), w(migration.RolledBack), "mark 0 a failed: restore failed"},
		{"cancelled: undecided moves are aborted", as(api.PlanCancelled, items...), w(migration.Held), lines("abort m-0: plan p was cancelled", "mark 1 b skipped: the plan was cancelled")},
		{"cancelled: decided moves go on", as(api.PlanCancelled, items...), w(migration.Committed), "mark 1 b skipped: the plan was cancelled"},
		{"cancelled: ends are noted", as(api.PlanCancelled, "a gamma moving from alpha m-0"), w(migration.RolledBack), "mark 0 a failed: restore failed"},
		{"done", as(api.PlanDone, "a gamma moved"), w(migration.Done), ""},
	})
}

func TestACronPlanWaitsForItsNextTick(t *testing.T) {
	cron := func(items ...string) api.Plan {
		return with(running(items...), func(p *api.Plan) { p.Spec.Cron = "30 2 * * 6" })
	}
	check(t, []rule{
		{"after a good run", cron("a gamma moved"), newWorld().on("gamma", "a"), "running -> scheduled at 2026-03-14 02:30:00"},
		{"after a bad one", cron("a gamma failed"), newWorld().on("alpha", "a"), "running -> scheduled at 2026-03-14 02:30:00"},
	})
}
