package vm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
)

func TestAMigrationMakesItsRoundsBySoftDirtyWhereTheKernelHasIt(t *testing.T) {
	inMachine(t, 2048, []string{"./cmd/drover", "./testenv/victims/dirtier"}, func() {
		c := newCluster(t)
		drover := func(args ...string) string {
			t.Helper()
			out, err := c.Drover(t.Context(), args...)
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(out)
		}
		reports := func() int { return strings.Count(drover("logs", "memory"), `"written":`) }
		works := func() {
			t.Helper()
			before := reports()
			hosttest.Eventually(t, "the tree says how it goes", func() bool { return reports() > before+1 })
		}
		// With an address, because older kernels have their own ways with links.
		drover("run", "memory", "--host", "alpha", "--address", "10.77.0.50/24", "--", "dirtier", "-memory", "32M", "-working-set", "1M", "-rate", "200", "-say", "200ms")
		works()

		m, err := c.Migrate(t.Context(), nil, "memory", "beta", "--max-rounds", "3", "--downtime", "1ms", "--tracker", "softdirty")
		if err != nil {
			t.Fatal(err)
		}
		if m.Phase != migration.Done || m.Progress.Tracker != "softdirty" {
			t.Errorf("it ended as %s with the tracker %q", m.Phase, m.Progress.Tracker)
		}
		rounds := m.Progress.Rounds
		if n := len(rounds); n < 4 || !rounds[n-1].Final { // more while the cut-over was being decided
			t.Fatalf("it made the rounds %+v, want three or more and a final pass", rounds)
		}
		for i, r := range rounds {
			t.Logf("round %d: %d of %d pages emitted, %d sent, %d bytes on the wire, final %v", r.N, r.Track.Emitted, r.Track.Scanned, r.PagesSent, r.WireBytes, r.Final)
			if !r.Final && r.Track.Tracker != "softdirty" {
				t.Errorf("round %d was made by %q", r.N, r.Track.Tracker)
			}
			if i > 0 && r.PagesSent > rounds[0].PagesSent/4 {
				t.Errorf("round %d sent %d pages, the first %d", r.N, r.PagesSent, rounds[0].PagesSent)
			}
		}

		w, err := c.Workload(t.Context(), "memory")
		if err != nil || w.Owner != "beta" {
			t.Fatalf("it belongs to %q, want beta: %v", w.Owner, err)
		}
		works()
		drover("stop", "memory", "--grace", "1m") // it looks at all its memory a last time
		var last struct{ Faults *int }
		if said := drover("logs", "memory", "--tail", "1"); json.Unmarshal([]byte(said), &last) != nil || last.Faults == nil || *last.Faults != 0 {
			t.Errorf("its last words on beta are %s", said)
		}
	})
}

// newCluster makes a coordinator and two workers on test hosts in this machine.
func newCluster(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, err := cluster.New(t.Context(), hosttest.Bed(t), cluster.Options{
		Drover: "/usr/local/bin/drover", Coordinators: []string{"gamma"}, Workers: []string{"alpha", "beta"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
