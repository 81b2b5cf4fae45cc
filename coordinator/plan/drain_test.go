package plan

import (
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/internal/workload"
)

func TestADrainCordonsItsHostAndFindsItsItemsTheLargestFirst(t *testing.T) {
	plan := with(draining(), func(p *api.Plan) { p.State, p.NextRun = api.PlanScheduled, noon })
	w := func() *world {
		return newWorld().on("alpha", "a", "b", "c").on("beta", "d").workload("b", func(w *api.Workload) { w.Status.RSS = 1 << 30 })
	}
	check(t, []rule{
		{"at its start", plan, w(), lines("cordon alpha", "scheduled -> running, b anywhere waiting, a anywhere waiting, c anywhere waiting")},
		{"a host that is cordoned already", plan, w().host("alpha", func(h *api.Host) { h.Cordoned = true }), "scheduled -> running, b anywhere waiting, a anywhere waiting, c anywhere waiting"},
		{"a person's uncordon in the middle stands", draining("a anywhere moving from alpha m-0"), newWorld().on("alpha", "a").move("p", "a", "alpha", "beta", migration.Copying), ""},
	})
}

func TestADrainGoesOnUntilNothingIsLeft(t *testing.T) {
	check(t, []rule{
		{"nothing is there", draining(), newWorld().on("beta", "a"), "running -> done"},
		{"what came later leaves too", draining("a beta moved from alpha m-9"), newWorld().on("beta", "a").on("alpha", "b"), lines("mark 1 b waiting", "start b (waiting) to delta")},
		{"what came back leaves again", draining("a beta moved from alpha m-9"), newWorld().on("alpha", "a"), "start a (moved) to beta"},
		{"what left by another's hand", draining("a anywhere"), newWorld().on("beta", "a"), lines("mark 0 a moved: it left by another's hand", "running -> done")},
		{"what was removed", draining("a anywhere"), newWorld(), lines("mark 0 a skipped: it has been removed", "running -> done")},
		{"what has exited does not count", draining("a anywhere"), newWorld().on("alpha", "a").workload("a", func(w *api.Workload) { w.Status.State = workload.Exited }), lines("mark 0 a skipped: it has exited: there is nothing to move", "running -> done")},
	})
}

func TestADrainNamesWhatCannotMoveAndLooksAgainUntilItsDeadline(t *testing.T) {
	refused := func() *world {
		return newWorld().on("alpha", "a").refuse("a", "beta", "x").refuse("a", "delta", "x").refuse("a", "gamma", "x")
	}
	const why = "no host can take it: alpha: it is there already; beta: x; delta: x; gamma: x"
	hour := func(p api.Plan) api.Plan { return with(p, func(p *api.Plan) { p.Spec.Deadline = time.Hour }) }
	stuck := with(draining("a anywhere skipped"), func(p *api.Plan) { p.Items[0].Reason = why })
	check(t, []rule{
		{"without a deadline it ends", draining("a anywhere"), refused(), lines("mark 0 a skipped: "+why, "running -> failed")},
		{"with one it stays", hour(draining("a anywhere")), refused(), "mark 0 a skipped: " + why},
		{"and says the same only once", hour(stuck), refused(), ""},
		{"and moves it once it can", hour(stuck), newWorld().on("alpha", "a"), "start a (skipped) to beta"},
		{"at the deadline it ends", with(hour(stuck), func(p *api.Plan) { p.Started = noon.Add(-time.Hour) }), refused(), "running -> failed"},
	})
}

func TestADrainTriesAgainElsewhereFirst(t *testing.T) {
	failedAt := func(hosts ...string) *world {
		w := newWorld().on("alpha", "a")
		for _, h := range hosts {
			w.move("p", "a", "alpha", h, migration.RolledBack)
		}
		w.Now = noon.Add(time.Hour)
		return w
	}
	at := func(w *world, after time.Duration) *world { w.Now = noon.Add(after); return w }
	check(t, []rule{
		{"not at once", draining("a beta failed from alpha m-0"), at(failedAt("beta"), 9*time.Second), ""},
		{"then on another host", draining("a beta failed from alpha m-0"), at(failedAt("beta"), 10*time.Second), "start a (failed) to delta"},
		{"the second time it waits twice as long", draining("a delta failed from alpha m-1"), at(failedAt("beta", "delta"), 20*time.Second), ""},
		{"on the same host if there is no other", draining("a beta failed from alpha m-0"), failedAt("beta").refuse("a", "delta", "x").refuse("a", "gamma", "x"), "start a (failed) to beta"},
		{"three times at most", draining("a gamma failed from alpha m-2"), failedAt("beta", "delta", "gamma"), "running -> failed"},
	})
}

func TestADryRunSaysWhereEverythingWouldGo(t *testing.T) {
	w := newWorld().on("alpha", "a", "b", "c", "d", "e").on("beta", "x").
		workload("a", func(w *api.Workload) { w.Status.RSS = 3 << 30 }).
		workload("b", func(w *api.Workload) { w.Status.RSS = 3 << 30 }).
		workload("c", func(w *api.Workload) { w.Status.RSS = 3 << 30 }).
		workload("d", func(w *api.Workload) { w.Status.RSS = 3 << 30 }).
		workload("e", func(w *api.Workload) { w.Status.State = workload.Exited })
	got := DrainReport(api.DrainRequest{Host: "alpha"}, w.State)
	want := []string{"a delta waiting", "b gamma waiting", "c beta waiting", "d anywhere skipped", "e anywhere skipped"}
	if len(got.Items) != len(want) || got.Plan != "" {
		t.Fatalf("got %+v", got)
	}
	for i, item := range got.Items {
		if text := strings.Join([]string{item.Workload, item.To, item.State}, " "); text != want[i] {
			t.Errorf("item %d: got %q (%s), want %q", i, text, item.Reason, want[i])
		}
	}
	if why := got.Items[3].Reason; !strings.Contains(why, "6208 MiB of it is promised") {
		t.Errorf("d cannot move, but the reason is %q", why)
	}
}
