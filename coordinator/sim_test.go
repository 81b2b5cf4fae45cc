package coordinator

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

var simSeeds = flag.Int("sim.seeds", 8, "how many drawn schedules of faults to try")

// TestUnderDrawnFaultsNoTreeRunsTwiceAndNoneIsLost moves trees back and forth while calls are lost, links are cut, targets fail
// and leaders die, and then heals everything: each migration must end, and each tree run on exactly the host that owns it.
func TestUnderDrawnFaultsNoTreeRunsTwiceAndNoneIsLost(t *testing.T) {
	for seed := range *simSeeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, c *cluster) {
				r := rand.New(rand.NewPCG(uint64(seed), 0))
				c.schedule(r)
			})
		})
	}
}

var (
	simHosts     = []string{"alpha", "beta", "gamma"}
	simWorkloads = []string{"redis", "nginx"}
	simCalls     = []string{"Inspect", "Judge", "Host", "Open source", "Open target", "Session", "CutOver", "Decide commit", "Decide abort", "Decide reclaim", "Confirm"}
	simFails     = []workerapi.Step{"", "", "", workerapi.StepStaged, workerapi.StepHeld, workerapi.StepReleased}
)

func (c *cluster) schedule(r *rand.Rand) {
	c.t.Helper()
	for _, h := range simHosts {
		c.addHost(h)
	}
	for i, w := range simWorkloads {
		c.run(w, simHosts[i])
	}
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	for range 12 {
		switch r.IntN(6) {
		case 0:
			c.world.fail(fault{host: pick(simHosts), call: pick(simCalls), after: r.IntN(2) == 0, times: 1 + r.IntN(4)})
		case 1:
			c.world.mu.Lock()
			c.world.hosts[pick(simHosts)].failAt = simFails[r.IntN(len(simFails))]
			c.world.mu.Unlock()
		case 2:
			a, b := pick([]string{"c1", "c2", "c3"}), pick(append([]string{"c1", "c2", "c3"}, simHosts...))
			if a != b {
				c.net.Cut(a, b)
				time.AfterFunc(time.Duration(r.IntN(20_000))*time.Millisecond, func() { c.net.Heal(a, b) })
			}
		case 3:
			a, b := pick([]string{"c1", "c2", "c3"}), pick(simHosts)
			c.net.Reset(a, b)
		case 4:
			if l := c.leader(); l != nil && r.IntN(2) == 0 {
				l.stop()
				c.start(l.cfg)
			}
		case 5:
			c.world.hosts[pick(simHosts)].die(pick(simWorkloads), 11)
		}
		for _, w := range simWorkloads { // what is refused is refused: it is being moved, or somebody does not answer
			if l := c.leader(); l != nil && r.IntN(2) == 0 {
				l.API().Migrate(c.t.Context(), api.MigrateRequest{Workload: w, To: pick(simHosts)})
			}
		}
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond) //nolint:forbidigo // a bubble's time
	}
	c.settle()
}

// settle heals everything and holds the cluster to its promises.
func (c *cluster) settle() {
	c.t.Helper()
	names := append([]string{"c1", "c2", "c3"}, simHosts...)
	time.Sleep(20 * time.Second) //nolint:forbidigo // a bubble's time
	for i, a := range names {
		for _, b := range names[i+1:] {
			c.net.Heal(a, b)
		}
	}
	c.world.mu.Lock()
	c.world.faults = nil
	for _, h := range c.world.hosts {
		h.failAt = ""
	}
	c.world.mu.Unlock()
	c.waitFor("every migration has ended", func() bool {
		all, err := c.any().Migrations(c.t.Context(), "")
		return err == nil && !slices.ContainsFunc(all, func(m api.Migration) bool { return !m.Phase.Final() })
	})
	for _, name := range simWorkloads {
		w := must(c.any().Workload(c.t.Context(), name))(c.t)
		c.world.mu.Lock()
		on, dead := c.world.running[name], c.world.died[name]
		c.world.mu.Unlock()
		switch {
		case on == w.Owner:
		case on == "" && dead == w.Owner && w.Status.State != workload.Exited: // ended by its own signal after probation
		default:
			c.t.Errorf("%s belongs to %s and runs on %q; %v", name, w.Owner, on, c.world.history)
		}
	}
	c.t.Logf("verdicts and runs: %v", c.world.history)
	for _, h := range c.world.hosts {
		for id, s := range h.sessions {
			if s.state.Step != workerapi.StepDone && s.state.Step != workerapi.StepUndone {
				c.t.Errorf("%s still has the session %s at %s", h.name, id, s.state.Step)
			}
		}
	}
}
