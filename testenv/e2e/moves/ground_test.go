package moves

import (
	"encoding/json"
	"testing"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

// ground is a cluster with a client's host beside it, and how its hosts looked before the first tree ran there.
type ground struct {
	*cluster.Cluster
	client *host.Host
	before footprint
}

// newGround makes a cluster that ends with the test.
func newGround(t *testing.T, coordinators []string, workers ...string) *ground {
	t.Helper()
	return newGroundWith(t, nil, coordinators, workers...)
}

// newGroundWith is newGround with options for the workers.
func newGroundWith(t *testing.T, options, coordinators []string, workers ...string) *ground {
	t.Helper()
	return newGroundOf(t, cluster.Options{Coordinators: coordinators, Workers: workers, Args: options})
}

// newGroundOf is newGround with all that a cluster may be told.
func newGroundOf(t *testing.T, options cluster.Options) *ground {
	t.Helper()
	bed, err := host.NewBed(t.Context(), "moves")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	hosttest.TellIfFailed(t, bed)
	g := &ground{}
	if options.Drover == "" {
		options.Drover = program("drover")
	}
	g.Cluster, err = cluster.New(t.Context(), bed, options)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range g.Workers {
		for _, name := range []string{"counter", "echo", "dirtier"} {
			if err := w.Install(program(name), "/usr/local/bin/"+name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if g.client, err = bed.Host(t.Context(), "client", host.Options{Address: "10.77.0.99/24"}); err != nil {
		t.Fatal(err)
	}
	g.warm(t)
	g.before = g.footprint(t)
	return g
}

// warm lets a small tree move there and back: what daemons make once and keep, their connections and drover's own cgroups, is
// there from then on.
func (g *ground) warm(t *testing.T) {
	t.Helper()
	first, last := g.Workers[0].Name, g.Workers[len(g.Workers)-1].Name
	g.drover(t, "run", "warm", "--host", first, "--", "sleep", "infinity")
	for _, to := range []string{last, first} {
		if _, err := g.Migrate(t.Context(), nil, "warm", to, "--probation", "50ms"); err != nil {
			t.Fatal(err)
		}
	}
	g.drover(t, "rm", "--force", "warm")
}

// worker is the member of that name.
func (g *ground) worker(t *testing.T, name string) *cluster.Member {
	t.Helper()
	for _, m := range g.Workers {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("no worker %q", name)
	return nil
}

// other is the worker of two that does not have that name.
func (g *ground) other(t *testing.T, name string) *cluster.Member {
	t.Helper()
	for _, m := range g.Workers {
		if m.Name != name {
			return m
		}
	}
	t.Fatalf("no worker but %q", name)
	return nil
}

// leader is the coordinator that leads now, once there is one.
func (g *ground) leader(t *testing.T) (leader *cluster.Member) {
	t.Helper()
	hosttest.Eventually(t, "somebody leads", func() (ok bool) {
		var err error
		leader, err = g.Leader(t.Context())
		return err == nil
	})
	return leader
}

// whole returns once every coordinator and every worker is well.
func (g *ground) whole(t *testing.T) {
	t.Helper()
	hosttest.Eventually(t, "all coordinators and workers are well", func() bool {
		var s api.ClusterStatus
		var hosts []api.Host
		if g.JSON(t.Context(), &s, "status") != nil || s.Leader == "" || g.JSON(t.Context(), &hosts, "hosts") != nil {
			return false
		}
		for _, c := range s.Coordinators {
			if !c.Healthy {
				return false
			}
		}
		for _, h := range hosts {
			if h.State != "up" || h.LastSeen.IsZero() {
				return false
			}
		}
		return true
	})
}

// drover runs a verb that has to succeed.
func (g *ground) drover(t *testing.T, args ...string) string {
	t.Helper()
	out, err := g.Drover(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// mend starts again the daemons that have died, and returns when everybody is well.
func (g *ground) mend(t *testing.T) {
	t.Helper()
	for _, m := range g.members() {
		select {
		case <-m.Daemon.Ended():
			if err := m.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	g.whole(t)
}

// outcome is the migration once it has ended on both hosts.
func (g *ground) outcome(t *testing.T, id migration.ID) (m api.Migration) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("migration %s was last seen %s: %s", id, m.Phase, m.Reason)
		}
	}()
	hosttest.Eventually(t, "the migration has ended", func() bool {
		m = api.Migration{}
		return g.JSON(t.Context(), &m, "show", "migration/"+string(id)) == nil && m.Phase.Final()
	})
	return m
}

// proved fails the test unless the evidence shows that the migration is over and broke no rule.
func (g *ground) proved(t *testing.T, id migration.ID) {
	t.Helper()
	e := g.evidence(t, id)
	if !e.Over || len(e.Wrong) > 0 {
		t.Errorf("the evidence on %s: over %t, wrong %q", id, e.Over, e.Wrong)
	}
	t.Logf("not known: %q", e.Unknown) // a worker that was restarted cannot say when the tree first ran
}

// evidence is what `drover prove` prints.
func (g *ground) evidence(t *testing.T, id migration.ID) (e api.Evidence) {
	t.Helper()
	hosttest.Eventually(t, "drover prove finds a leader", func() bool {
		out, _ := g.Drover(t.Context(), "prove", string(id), "--json") // the exit code says whether it is complete
		e = api.Evidence{}
		return json.Unmarshal([]byte(out), &e) == nil
	})
	return e
}
