package moves

import (
	"encoding/json"
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/testenv/host/hosttest"
)

func TestADryRunMeasuresAndLeavesNothing(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "weighed", "alpha", 0, small)
	lines := strings.Split(strings.TrimSpace(g.drover(t, "migrate", s.name, "--to", "beta", "--dry-run", "--json")), "\n")
	var d api.DryRun
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &d); err != nil {
		t.Fatal(err)
	}
	if d.Forecast == nil || d.Forecast.Blackout == 0 || d.Progress.Round != 2 || d.Progress.PagesSent == 0 {
		t.Fatalf("it ended with %+v", d)
	}
	s.lives(t, "alpha")
	var all []api.Migration
	if err := g.JSON(t.Context(), &all, "migrations", s.name); err != nil || len(all) > 0 {
		t.Errorf("the record has %+v: %v", all, err)
	}
	m, err := g.Migrate(t.Context(), nil, s.name, "beta")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a dry run expected %s (%s), the move %s; it took %s", d.Forecast.Blackout, d.Forecast.Ends, m.Downtime.Predicted, m.Downtime.Measured)
	s.lives(t, "beta")
	s.end(t)
	g.nothingLeft(t, 0)
}

func TestADryRunWhoseCoordinatorDiesIsUndoneByTheHosts(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "weighed", "alpha", 0, small)
	from := len(g.worker(t, "alpha").Daemon.Log())
	ended := make(chan error, 1)
	go func() {
		_, err := g.Drover(t.Context(), "migrate", s.name, "--to", "beta", "--dry-run", "--bandwidth", "500kB", "--compression", "none")
		ended <- err
	}()
	hosttest.Eventually(t, "it has begun", func() bool { return strings.Contains(g.worker(t, "alpha").Daemon.Log()[from:], "note=opened") })
	restart(t, g.Coordinators[0])
	if err := <-ended; err == nil {
		t.Error("it ended well")
	}
	g.whole(t)
	hosttest.Eventually(t, "both hosts have undone it", func() bool {
		return strings.Contains(g.worker(t, "alpha").Daemon.Log()[from:], "step=undone") && s.copies(g.worker(t, "beta").Host) == 0
	})
	s.lives(t, "alpha")
	if m, err := g.Migrate(t.Context(), nil, s.name, "beta"); err != nil {
		t.Errorf("the move after it ended %s: %v", m.Phase, err)
	}
	s.end(t)
	g.nothingLeft(t, spare)
}

// At the limit that each of these begins with, the copy would take a minute.
func TestLimitsAreChangedWhileAMoveRuns(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	own := []string{"limit", "patient", "none"}
	for what, limit := range map[string]struct {
		set  []string
		lift [][]string
		own  string // of the migration
	}{
		"of the migration": {nil, [][]string{own}, "50kB"},
		// It holds from the first byte on: else the move would be over before the host's next heartbeat. Its end is heard of with one.
		"of the host": {[]string{"host", "limit", "alpha", "50kB"}, [][]string{{"host", "limit", "alpha", "none"}}, "0"},
	} {
		s := g.start(t, "patient", "alpha", 0, small)
		if limit.set != nil {
			g.drover(t, limit.set...)
		}
		limited, lifted := false, false
		m, err := g.Migrate(t.Context(), func(m api.Migration) {
			if m.Phase != migration.Copying {
				return
			}
			limited = limited || m.Progress.Limit == 50e3
			if limited && !lifted {
				lifted = true
				for _, lift := range limit.lift {
					g.drover(t, lift...)
				}
			}
		}, s.name, "beta", "--compression", "none", "--bandwidth", limit.own)
		if err != nil || !lifted {
			t.Errorf("%s: it was limited %v and ended %s: %v", what, limited, m.Phase, err)
		}
		if took := m.Transitions[len(m.Transitions)-1].Time.Sub(m.Transitions[0].Time); took.Seconds() > 20 {
			t.Errorf("%s: it took %s", what, took)
		}
		s.lives(t, "beta")
		s.end(t)
		g.nothingLeft(t, 0)
	}
}
