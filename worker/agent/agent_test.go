package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	coordinatorapi "drover/coordinator/api"
	"drover/engine"
	"drover/engine/criu"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/transfer/link"
	workerapi "drover/worker/api"
)

func TestATreeMovesBetweenTwoWorkersOverSSH(t *testing.T) {
	c := newCluster(t)
	c.coordinate()
	c.hold()
	if _, err := c.api("beta").Decide(t.Context(), id, migration.Commit, at+1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.api("alpha").Decide(t.Context(), id, migration.Commit, at+1); err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"alpha", "beta"} {
		if _, err := c.api(h).Confirm(t.Context(), id, at+1); err != nil {
			t.Fatal(err)
		}
	}
	if live := c.world.Living(name); !slices.Equal(live, []string{"beta"}) {
		t.Errorf("it lives on %v", live)
	}
}

func TestWithoutALeaderTheRecordIsAskedAndObeyed(t *testing.T) {
	for _, v := range []struct {
		phase migration.Phase
		lives string
	}{{migration.Aborted, "alpha"}, {migration.Done, "beta"}} {
		t.Run(string(v.phase), func(t *testing.T) {
			c := newCluster(t)
			c.hold()
			stop := c.coordinate() // it has no leader's word to say, but answers
			c.until("workers to ask", func() bool { c.record.mu.Lock(); defer c.record.mu.Unlock(); return c.record.asked > 0 })
			if held := c.world.Held(name); !slices.Equal(held, []string{"alpha", "beta"}) {
				t.Errorf("without a verdict only %v is held", held)
			}
			stop()
			c.record.decide(v.phase)
			c.coordinate()
			c.until("the verdict to be acted on", func() bool {
				return slices.Equal(c.world.Living(name), []string{v.lives}) && slices.Equal(c.world.Running(name), []string{v.lives})
			})
		})
	}
}

func TestAWorkerThatIsRestartedGoesOnHolding(t *testing.T) {
	c := newCluster(t)
	c.hold()
	for _, h := range []string{"alpha", "beta"} {
		c.hosts[h].stop()
		c.work(h)
	}
	if held, run := c.world.Held(name), c.world.Running(name); !slices.Equal(held, []string{"alpha", "beta"}) || len(run) > 0 {
		t.Errorf("held on %v, runs on %v", held, run)
	}
	c.record.decide(migration.Aborted)
	c.coordinate()
	c.until("the source to run again", func() bool { return slices.Equal(c.world.Running(name), []string{"alpha"}) })
}

func TestHeartbeatsReachACoordinatorThatAnswers(t *testing.T) {
	c := newCluster(t)
	c.hold()
	c.coordinate() // c1; c0 has never been there
	c.until("a heartbeat of each", func() bool { c.record.mu.Lock(); defer c.record.mu.Unlock(); return len(c.record.beats) == 2 })
	c.record.mu.Lock()
	defer c.record.mu.Unlock()
	hb := c.record.beats["alpha"]
	if len(hb.Sessions) != 1 || hb.Sessions[0].Migration != id || len(hb.Workloads) != 1 {
		t.Errorf("it says %d sessions, %d workloads", len(hb.Sessions), len(hb.Workloads))
	}
	f := hb.Facts
	if f.MemoryTotal <= 0 || f.MemoryFree <= 0 || f.MemoryFree > f.MemoryTotal || f.CPUs < 1 || f.Boot == "" || f.DiskFree <= 0 || f.Started.IsZero() || f.Address != "alpha:7202" {
		t.Errorf("facts: %+v", f)
	}
}

// A worker whose CRIU cannot be run is up, and says what it lacks: a host that is not heard of is called lost with its trees.
func TestAWorkerWithoutAWorkingCRIUIsHeard(t *testing.T) {
	c := newCluster(t)
	c.coordinate()
	c.engine = criu.New(criu.Config{Path: "/bin/true"})
	c.work("alpha").trees.Run(name, at)
	const want = "CRIU at /bin/true could not be asked for its version"
	var f engine.Features
	c.until("a heartbeat that says so", func() bool {
		c.record.mu.Lock()
		defer c.record.mu.Unlock()
		f = c.record.beats["alpha"].Facts.Engine
		return strings.Contains(f.Unfit, want)
	})
	if f.Fit() == nil || !strings.Contains(strings.Join(f.Missing, ";"), want) {
		t.Errorf("it says of its engine: %+v", f)
	}
}

func TestOnlyCoordinatorsCallAndOnlyTransfersBringPages(t *testing.T) {
	c := newCluster(t)
	c.work("beta")
	worker := link.NewPool(c.identity(pki.Worker("alpha")), link.WithDial(c.network.From("alpha")))
	defer worker.Close()
	if _, err := workerapi.NewClient(worker.HTTP("beta:7202", "worker:beta")).Host(t.Context()); err == nil {
		t.Error("a worker called another worker's API")
	}
	if conn, err := c.pool.Open(t.Context(), "beta:7202", "worker:beta", link.ChannelPages); err == nil {
		conn.Close()
		t.Error("a coordinator opened a page channel")
	}
	if conn, err := worker.Open(t.Context(), "beta:7202", "worker:beta", link.ChannelPages); err == nil {
		conn.Close()
		t.Error("a worker opened a page channel by its own certificate")
	}
	alpha := c.identity(pki.Worker("alpha"))
	unknown := pki.Transfer{Migration: "m-9", Epoch: 1, Source: "alpha", Target: "beta", Direction: pki.Pages}
	cert, err := c.authority.SignTransfer(alpha.Signer.PublicKey(), unknown, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := worker.OpenApart(t.Context(), link.AsSource(alpha, cert), "beta:7202", "worker:beta", link.ChannelPages)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errs.KindOf(err) == errs.Timeout {
		t.Errorf("a page channel of an unknown migration stays open: %v", err)
	}
}

func TestAWorkerThatCannotRunSaysWhy(t *testing.T) {
	c := newCluster(t)
	h := c.work("alpha")
	for what, change := range map[string]func(*Config){
		"cannot name a host":    func(c *Config) { c.Name = "Alpha" },
		"no address to listen":  func(c *Config) { c.Listen = "" },
		"no state directory":    func(c *Config) { c.StateDir = "" },
		"has no identity":       func(c *Config) { c.Identity = nil },
		"the identity of":       func(c *Config) { c.Name = "gamma" },
		"knows no coordinator":  func(c *Config) { c.Coordinators = nil },
		"is in use":             func(*Config) {}, // the same state directory
		"a memory limit of -1 ": func(c *Config) { c.MemoryLimit = -1 },
		"-1 bytes of memory":    func(c *Config) { c.StoreMemory = -1 },
		"is itself in memory":   func(c *Config) { c.StoreSpill = "/dev/shm" },
		"not a directory":       func(c *Config) { c.StoreSpill = "/dev/null/stores" },
	} {
		cfg := c.config(h)
		change(&cfg)
		a, err := New(cfg)
		if err == nil {
			a.giveBack()
		}
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q, got %v", what, err)
		}
	}
}

func TestCoordinatorsAreTriedUntilOneAnswers(t *testing.T) {
	down := map[string]bool{"a": true, "b": true}
	var tried []string
	cs := newCoordinators([]string{"a", "b", "c"}, func(address string) coordinatorapi.Coordinator {
		tried = append(tried, address)
		return nil
	})
	call := func(answer error) error {
		tried = nil
		return cs.call(t.Context(), func(coordinatorapi.Coordinator) error {
			if down[tried[len(tried)-1]] {
				return errs.New(errs.Unavailable, "down")
			}
			return answer
		})
	}
	if err := call(nil); err != nil || !slices.Equal(tried, []string{"a", "b", "c"}) {
		t.Errorf("tried %v: %v", tried, err)
	}
	if err := call(errs.New(errs.NotFound, "no such migration")); errs.KindOf(err) != errs.NotFound || !slices.Equal(tried, []string{"c"}) {
		t.Errorf("the one that answered last was not asked first, or its answer was not taken: %v, %v", tried, err)
	}
	down["c"] = true
	if err := call(nil); errs.KindOf(err) != errs.Unavailable || errs.NextOf(err) == "" || len(tried) != 3 {
		t.Errorf("none answers: %v, %v", tried, err)
	}
}
