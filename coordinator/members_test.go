package coordinator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/consensus"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// followers are the coordinators that do not lead, by name.
func (c *cluster) followers() (out []*member) {
	leader := c.leader()
	for _, name := range []string{"c1", "c2", "c3", "c4", "c5"} {
		if m := c.coordinators[name]; m != nil && m != leader {
			out = append(out, m)
		}
	}
	return out
}

func TestWhileAMajorityIsGoneHeldTreesStayHeldAndTheRestSaysWhatWaits(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta").restoreFor = 5 * time.Second
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		c.reaches(id, migration.Frozen)
		c.waitFor("the tree is held", func() bool { return c.world.runsOn("redis") == "" })
		lost := c.followers()
		for _, m := range lost {
			m.stop()
			delete(c.coordinators, m.cfg.Name)
		}
		c.waitFor("the one that is left knows", func() bool { return c.leader() == nil })
		time.Sleep(10 * time.Minute) //nolint:forbidigo // a bubble's time
		if on := c.world.runsOn("redis"); on != "" {
			t.Errorf("redis runs on %s, and nobody can have decided that", on)
		}
		var left string
		for left = range c.coordinators {
		}
		st := must(c.api(left).Cluster(t.Context()))(t)
		if len(st.UnderWay) != 1 || st.UnderWay[0].Migration != id || st.UnderWay[0].Phase != migration.Frozen || st.Leader != "" {
			t.Errorf("%s says that %+v waits, and %q leads", left, st.UnderWay, st.Leader)
		}
		for _, m := range st.Coordinators {
			if m.Healthy != (m.Name == left) {
				t.Errorf("%s is said to answer: %t", m.Name, m.Healthy)
			}
		}
		c.start(lost[0].cfg)
		m := c.finish(id)
		if on := c.world.runsOn("redis"); !m.Phase.Final() || on != "alpha" && on != "beta" {
			t.Errorf("with a majority again it ended %s, and redis runs on %q", m.Phase, on)
		}
	})
}

func TestACoordinatorIsRestoredFromNothing(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta")
		c.run("redis", "alpha")
		gone := c.followers()[0]
		gone.stop()
		delete(c.coordinators, gone.cfg.Name)
		if err := os.RemoveAll(filepath.Join(gone.cfg.DataDir, "record")); err != nil {
			t.Fatal(err)
		}
		// Started so, it would have forgotten its votes and still have one.
		listener := must(c.net.Listen("elsewhere:7201"))(t)
		defer listener.Close()
		_, err := consensus.Open(consensus.Config{Self: consensus.Peer{Name: gone.cfg.Name, Address: "elsewhere:7201"}, Dir: filepath.Join(gone.cfg.DataDir, "record"), Listener: listener, Log: c.log})
		if err == nil || !strings.Contains(errs.NextOf(err), "join again") {
			t.Errorf("a coordinator whose record is gone starts: %v", err)
		}
		must(c.any().RemoveCoordinator(t.Context(), gone.cfg.Name))(t)
		c.join(gone.cfg.Name)
		again := c.coordinators[gone.cfg.Name]
		c.waitFor("it has the record", func() bool { _, ok := again.node.View().Workloads["redis"]; return ok })
		c.kill(c.followers()[0]) // one of three may be lost again
		if m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID); m.Phase != migration.Done {
			t.Errorf("it ended %s: %s", m.Phase, m.Reason)
		}
	})
}

func TestAClusterGrowsToThreeAndBackToOneInTheMiddleOfAMove(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha").copyFor = time.Hour
		c.addHost("beta")
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		c.join("c2")
		c.join("c3")
		// c1, which leads, goes too: the record must have come over whole.
		for _, name := range []string{"c1", "c3"} {
			must(c.any().RemoveCoordinator(t.Context(), name))(t)
			c.kill(c.coordinators[name])
		}
		c.waitFor("c2 leads alone", func() bool { return c.leader() == c.coordinators["c2"] })
		s := c.coordinators["c2"].node.View()
		if len(s.Members) != 1 || len(s.Hosts) != 2 || s.Workloads["redis"].Migration != id || len(s.Operators) != 1 {
			t.Errorf("c2 alone has %d members, %d hosts, redis moved by %q, %d operators", len(s.Members), len(s.Hosts), s.Workloads["redis"].Migration, len(s.Operators))
		}
		alpha := c.world.hosts["alpha"]
		c.world.mu.Lock()
		alpha.step(alpha.sessions[id], workerapi.StepReady)
		c.world.mu.Unlock()
		if m := c.finish(id); m.Phase != migration.Done || c.world.runsOn("redis") != "beta" {
			t.Errorf("it ended %s: %s; redis runs on %q", m.Phase, m.Reason, c.world.runsOn("redis"))
		}
	})
}

// Nobody needs the one that is lost: not for a decision, not for a question, not for what is under way.
func TestOneLostCoordinatorOfThreeIsNotFelt(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha").copyFor = 5 * time.Second
		c.addHost("beta")
		c.run("redis", "alpha")
		whole := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID)
		c.world.hosts["beta"].copyFor = 5 * time.Second
		id := c.migrate("redis", "alpha", workerapi.MoveOptions{}).ID
		c.reaches(id, migration.Copying)
		c.kill(c.followers()[0])
		m := c.finish(id)
		a, b := lasted(whole), lasted(m)
		if m.Phase != migration.Done || b > a+100*time.Millisecond {
			t.Errorf("with one lost it ended %s and took %s, with all of them %s", m.Phase, b, a)
		}
	})
}

func lasted(m api.Migration) time.Duration {
	return m.Transitions[len(m.Transitions)-1].Time.Sub(m.Transitions[0].Time)
}
