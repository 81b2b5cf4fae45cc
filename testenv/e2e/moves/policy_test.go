package moves

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
)

// restless is a workload that rewrites all of its memory as fast as it can and says five times a second how much that was.
type restless struct {
	*ground
	t    *testing.T
	name string
}

func (g *ground) restless(t *testing.T, name string) *restless {
	t.Helper()
	g.drover(t, "run", name, "--host", "alpha", "--", "dirtier", "-memory", "64M", "-working-set", "64M", "-rate", "1000000", "-verify", "0", "-say", "200ms")
	r := &restless{g, t, name}
	hosttest.Eventually(t, name+" writes", func() bool { return len(r.paces()) > 3 })
	return r
}

// paces are how many pages it has written from each of its reports to the next.
func (r *restless) paces() (paces []int) {
	r.t.Helper()
	last := 0
	for line := range strings.Lines(r.drover(r.t, "logs", r.name)) {
		var said struct{ Written, Faults int }
		if json.Unmarshal([]byte(line), &said) != nil {
			continue
		}
		if said.Faults > 0 {
			r.t.Fatalf("it has found %d faults in itself", said.Faults)
		}
		if last > 0 {
			paces = append(paces, said.Written-last)
		}
		last = said.Written
	}
	return paces
}

// runsFreely fails the test unless it runs on that host, as fast as it did at first.
func (r *restless) runsFreely(on *cluster.Member) {
	r.t.Helper()
	w, err := r.Workload(r.t.Context(), r.name)
	if err != nil || w.Owner != on.Name || w.Migration != "" {
		r.t.Fatalf("it is on %s, in migration %q: %v", w.Owner, w.Migration, err)
	}
	if frozen := hosttest.Run(r.t, on.Host, "cat", "/sys/fs/cgroup/drover/"+r.name+"/cgroup.freeze"); strings.TrimSpace(frozen) != "0" {
		r.t.Errorf("its group says that it is frozen: %s", frozen)
	}
	before := len(r.paces())
	hosttest.Eventually(r.t, r.name+" is as fast as before", func() bool {
		all := r.paces()
		return len(all) > before+3 && median(all[len(all)-3:]) > median(all[:3])/2
	})
}

// taken is what the kernel had been told to take from a tree when: percent of one processor in each period.
type taken struct {
	at      time.Time
	percent int
}

// watchTaken looks again and again what is taken from it on a host, until stop: how long each pulse was in which its group was told to be
// frozen, or what quota the group has. A busy machine makes a pulse longer, and the quota smaller, which is a share of what the tree could use.
func (r *restless) watchTaken(on *cluster.Member) (stop func() []taken) {
	const period = 50 * time.Millisecond // of pulses
	group, done, all := on.Path("/sys/fs/cgroup/drover/"+r.name), make(chan struct{}), make(chan []taken)
	go func() {
		var seen []taken
		var pulse time.Time // since when it is frozen
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-done:
				all <- seen
				return
			}
			now := time.Now()
			var quota, of int
			max, _ := os.ReadFile(filepath.Join(group, "cpu.max")) // "max 100000" is no quota
			if n, _ := fmt.Sscan(string(max), &quota, &of); n == 2 {
				seen = append(seen, taken{now, 100 - 100*quota/of})
			}
			freeze, _ := os.ReadFile(filepath.Join(group, "cgroup.freeze")) // there is none when it has left
			switch frozen := strings.TrimSpace(string(freeze)) == "1"; {
			case frozen && pulse.IsZero():
				pulse = now
			case !frozen && !pulse.IsZero():
				seen = append(seen, taken{now, int(100 * now.Sub(pulse) / period)})
				pulse = time.Time{}
			}
		}
	}()
	return func() []taken { close(done); return <-all }
}

func median(of []int) int {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

// never is a budget that nothing can meet, so that every step of a policy is seen.
var never = []string{"--downtime", "1ms", "--patience", "500ms", "--max-rounds", "3", "--probation", "200ms"}

func TestATreeThatNeverSettlesIsSlowedDownAndThenMovesOverItsBudget(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	r := g.restless(t, "busy")
	source := g.worker(t, "alpha")
	stop := r.watchTaken(source)
	from := len(source.Daemon.Log())
	m, err := g.Migrate(t.Context(), nil, r.name, "beta", append(never, "--policy", "must-move")...)
	seen := stop()
	if err != nil {
		t.Fatal(err)
	}
	var levels []string
	var since, until time.Time // the highest level
	for line := range strings.Lines(source.Daemon.Log()[from:]) {
		said := noted.FindStringSubmatch(line)
		if said == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339, said[1])
		if err != nil {
			t.Fatal(err)
		}
		if said[2] == "" {
			until = at
			continue
		}
		levels, since = append(levels, said[2]), at
	}
	if !slices.Equal(levels, []string{"20", "40", "60", "80"}) {
		t.Errorf("it was slowed down by %v", levels)
	}
	if said := strings.Join(recorded(m), "\n"); !strings.Contains(said, "over the budget") || !strings.Contains(said, "80 %") || !m.Downtime.Missed {
		t.Errorf("the record does not say that it went over its budget:\n%s", said)
	}
	r.runsFreely(g.worker(t, "beta"))
	var percents []int
	for _, told := range seen {
		if told.at.After(since) && told.at.Before(until) {
			percents = append(percents, told.percent)
		}
	}
	if len(percents) == 0 || median(percents) < 75 {
		t.Errorf("at 80 %% there was taken from it in each period, percent: %v", percents)
	}
	t.Logf("at 80 %%, for %s, there was taken from it in each period, percent: %v; blackout %s, predicted %s", until.Sub(since), percents, m.Downtime.Measured, m.Downtime.Predicted)
	g.drover(t, "rm", "--force", r.name)
	g.nothingLeft(t, 0)
}

// noted are a source's words in its log on what it takes from its tree, and that it will take no more; with when it said so.
var noted = regexp.MustCompile(`time=(\S+) .*note="(?:taking (\d+) % of its time|over the budget)`)

func TestAGentleMoveGivesUpAndSaysWhatItWouldHaveCost(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	r := g.restless(t, "busy")
	m, err := g.Migrate(t.Context(), nil, r.name, "beta", append(never, "--policy", "gentle", "--bandwidth", "0")...)
	if err == nil || m.Phase != migration.RolledBack || !strings.Contains(m.Reason, "more than the 1ms allowed") || m.Blackout != 0 {
		t.Errorf("it ended %s after %s: %s, %v", m.Phase, m.Blackout, m.Reason, err)
	}
	r.runsFreely(g.worker(t, "alpha"))
	g.drover(t, "rm", "--force", r.name)
	g.nothingLeft(t, 0)
}

func TestWhatIsTakenFromATreeIsGivenBack(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	for what, happens := range map[string]func(api.Migration){
		"after an abort":            func(m api.Migration) { g.drover(t, "abort", string(m.ID), "--detach") },
		"when the worker is killed": func(api.Migration) { restart(t, g.worker(t, "alpha")) },
		"when the worker is told to end": func(api.Migration) {
			if err := g.worker(t, "alpha").Daemon.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			restart(t, g.worker(t, "alpha"))
		},
	} {
		r := g.restless(t, "busy")
		done := false
		m, _ := g.Migrate(t.Context(), func(m api.Migration) {
			if m.Progress.Throttle >= 60 && !done {
				done = true
				happens(m)
			}
		}, r.name, "beta", append(never, "--policy", "must-move")...)
		if m = g.outcome(t, m.ID); !done || m.Phase != migration.RolledBack {
			t.Errorf("%s: happened %v, it ended %s: %s", what, done, m.Phase, m.Reason)
		}
		r.runsFreely(g.worker(t, "alpha"))
		g.drover(t, "rm", "--force", r.name)
		g.nothingLeft(t, spare)
	}
}

func restart(t *testing.T, m *cluster.Member) {
	t.Helper()
	if err := m.Restart(t.Context()); err != nil {
		t.Error(err)
	}
}

// Every move says what was expected of it and by how much that was off. By how much it is off here is this machine's load: how past moves
// correct what is expected is held to figures by worker/session's tests, and measured by make bench-report.
func TestEveryMoveSaysHowFarItsPredictionWasOff(t *testing.T) {
	const moves = 12
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	g.drover(t, "run", "steady", "--host", "alpha", "--", "dirtier", "-memory", "256M", "-working-set", "8M", "-rate", "2000", "-verify", "0", "-say", "1h")
	at, other := "alpha", "beta"
	var off []float64
	for range moves {
		m, err := g.Migrate(t.Context(), nil, "steady", other, "--probation", "100ms")
		if err != nil {
			t.Fatal(err)
		}
		at, other = other, at
		if d := m.Downtime; d.Predicted <= 0 || d.Measured <= 0 || d != api.NewDowntime(d.Budget, d.Predicted, d.Measured) {
			t.Errorf("to %s: %+v does not say what was expected, what was taken and how far apart they are", at, d)
		}
		off = append(off, m.Downtime.Error)
		t.Logf("to %s: %s expected, %s taken: %+.0f %%", at, m.Downtime.Predicted, m.Downtime.Measured, m.Downtime.Error)
	}
	last := off[moves/3:] // each way has been gone twice
	for i := range last {
		last[i] = math.Abs(last[i])
	}
	slices.Sort(last)
	t.Logf("off by %.0f %% in the middle, %.0f %% at most", last[len(last)/2], last[len(last)-1])
	g.drover(t, "rm", "--force", "steady")
	g.nothingLeft(t, 0)
}
