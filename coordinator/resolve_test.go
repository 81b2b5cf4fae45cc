package coordinator

import (
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// gone cuts a host off from every coordinator and, with its power, ends what ran on it.
func (c *cluster) gone(host string) {
	for name := range c.coordinators {
		c.net.Cut(name, host)
	}
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	for name, on := range c.world.running {
		if on == host {
			c.world.running[name] = ""
		}
	}
}

func (c *cluster) back(host string) {
	for name := range c.coordinators {
		c.net.Heal(name, host)
	}
}

func burnt(d api.Decision, host string) api.ResolveRequest {
	return api.ResolveRequest{Decision: d, Vouch: host, Reason: "burnt"}
}

// waits is a migration of redis from alpha to beta that has stood still in phase p for a minute, because host was lost when it came there.
func (c *cluster) waits(p migration.Phase, host string, o workerapi.MoveOptions) migration.ID {
	c.t.Helper()
	c.addHost("alpha")
	c.addHost("beta")
	c.run("redis", "alpha")
	id := c.migrate("redis", "beta", o).ID
	c.reaches(id, p)
	c.gone(host)
	return id
}

func (c *cluster) aMinuteLater(id migration.ID, want migration.Phase) api.Situation {
	c.t.Helper()
	time.Sleep(time.Minute) //nolint:forbidigo // a bubble's time
	s := must(c.any().Situation(c.t.Context(), id))(c.t)
	if s.Phase != want {
		c.t.Fatalf("after a minute it is %s, not %s", s.Phase, want)
	}
	return s
}

func choices(s api.Situation) (out []api.Decision) {
	for _, c := range s.Choices {
		out = append(out, c.Decision)
	}
	return out
}

func TestATargetThatIsGoneForGoodGivesTheTreeBackOnAnAdminsWord(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		id := c.waits(migration.Released, "beta", workerapi.MoveOptions{})
		if _, err := c.any().Resolve(t.Context(), id, burnt(api.TargetIsDead, "beta")); errs.KindOf(err) != errs.Refused || err == nil {
			t.Errorf("at once: %v", err)
		}
		s := c.aMinuteLater(id, migration.Released)
		if got := choices(s); len(got) != 2 || got[0] != api.TargetIsDead || !strings.Contains(s.Choices[0].First, "power beta off") {
			t.Errorf("to be decided: %+v", s.Choices)
		}
		_, err := c.any().Resolve(t.Context(), id, burnt(api.TargetIsDead, "alpha"))
		wantKind(t, "vouching for the wrong host", err, errs.Invalid)
		_, err = c.any().Resolve(t.Context(), id, burnt(api.SourceIsDead, "alpha"))
		wantKind(t, "giving up a source that answers", err, errs.Refused)
		if on := c.world.runsOn("redis"); on != "" {
			t.Fatalf("redis runs on %s before anybody has decided", on)
		}
		must(c.any().Resolve(t.Context(), id, burnt(api.TargetIsDead, "beta")))(t)
		m := c.finish(id)
		w := must(c.any().Workload(t.Context(), "redis"))(t)
		if m.Phase != migration.RolledBack || m.Verdict != migration.Reclaim || c.world.runsOn("redis") != "alpha" || w.Owner != "alpha" || w.Epoch != 3 {
			t.Errorf("it ended %s (%s); redis runs on %q, belongs to %s at epoch %d", m.Phase, m.Verdict, c.world.runsOn("redis"), w.Owner, w.Epoch)
		}
		e := must(c.any().Evidence(t.Context(), id))(t)
		if !strings.Contains(e.Reason, "operator:ada:admin vouches that host beta is fenced: burnt") || e.Complete() || len(e.Wrong) > 0 {
			t.Errorf("the evidence: %q, not known %q, wrong %q", e.Reason, e.Unknown, e.Wrong)
		}
		c.back("beta")
		c.waitFor("beta has removed its copy", func() bool {
			st := must(c.world.hosts["beta"].Session(t.Context(), id))(t)
			return st.Step == workerapi.StepUndone
		})
		_, err = c.any().Resolve(t.Context(), id, burnt(api.TargetIsDead, "beta"))
		wantKind(t, "deciding again", err, errs.Conflict)
	})
}

func TestATargetThatSomebodyHasSeenAliveKeepsTheTree(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		id := c.waits(migration.Released, "nobody", workerapi.MoveOptions{Probation: 30 * time.Second})
		for name := range c.coordinators {
			c.net.Cut(name, "beta")
		}
		c.aMinuteLater(id, migration.Released)
		must(c.any().Resolve(t.Context(), id, api.ResolveRequest{Decision: api.TargetIsAlive, Vouch: "beta", Reason: "it serves"}))(t)
		c.waitFor("alpha has ended its tree", func() bool {
			return must(c.world.hosts["alpha"].Session(t.Context(), id))(t).Step == workerapi.StepDone
		})
		c.back("beta")
		if m := c.finish(id); m.Phase != migration.Done || c.world.runsOn("redis") != "beta" {
			t.Errorf("it ended %s; redis runs on %q", m.Phase, c.world.runsOn("redis"))
		}
	})
}

func TestASourceThatIsGoneDoesNotKeepAMigrationFromEnding(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		id := c.waits(migration.Released, "alpha", workerapi.MoveOptions{})
		s := c.aMinuteLater(id, migration.Released)
		if got := choices(s); len(got) != 1 || got[0] != api.SourceIsDead {
			t.Fatalf("to be decided: %+v, because %q", s.Choices, s.Because)
		}
		must(c.any().Resolve(t.Context(), id, burnt(api.SourceIsDead, "alpha")))(t)
		if m := c.finish(id); m.Phase != migration.Done || c.world.runsOn("redis") != "beta" {
			t.Errorf("it ended %s; redis runs on %q", m.Phase, c.world.runsOn("redis"))
		}
		c.back("alpha")
		c.waitFor("alpha, which came back after all, has ended its tree", func() bool {
			return must(c.world.hosts["alpha"].Session(t.Context(), id))(t).Step == workerapi.StepDone
		})
	})
}

func TestASourceThatIsGoneAfterAnAbortHasItsTreeAgainShouldItComeBack(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha").copyFor = time.Hour
		c.addHost("beta")
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		c.reaches(id, migration.Copying)
		for name := range c.coordinators {
			c.net.Cut(name, "alpha")
		}
		s := c.aMinuteLater(id, migration.Aborted)
		if got := choices(s); len(got) != 1 || got[0] != api.SourceIsDead {
			t.Fatalf("to be decided: %+v, because %q", s.Choices, s.Because)
		}
		must(c.any().Resolve(t.Context(), id, burnt(api.SourceIsDead, "alpha")))(t)
		if m := c.finish(id); m.Phase != migration.RolledBack || m.Verdict != migration.Abort {
			t.Errorf("it ended %s (%s)", m.Phase, m.Verdict)
		}
		c.back("alpha")
		c.waitFor("alpha has undone its part", func() bool {
			return must(c.world.hosts["alpha"].Session(t.Context(), id))(t).Step == workerapi.StepUndone
		})
		if on := c.world.runsOn("redis"); on != "alpha" {
			t.Errorf("redis runs on %q", on)
		}
	})
}

func TestNobodyIsNeededWhereAMigrationGoesOnByItself(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha").copyFor = time.Hour
		c.addHost("beta")
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		c.reaches(id, migration.Copying)
		s := must(c.any().Situation(t.Context(), id))(t)
		if len(s.Choices) != 0 || len(s.Because) != 1 || !strings.Contains(s.Because[0], "drover abort") {
			t.Errorf("to be decided: %+v, because %q", s.Choices, s.Because)
		}
		_, err := c.any().Resolve(t.Context(), id, burnt(api.TargetIsDead, "beta"))
		wantKind(t, "deciding before the verdict", err, errs.Conflict)
		_, err = c.any().Resolve(t.Context(), id, api.ResolveRequest{Decision: api.TargetIsDead, Vouch: "beta"})
		wantKind(t, "deciding without a reason", err, errs.Invalid)
	})
}

// What an old ABORT left held must not run once the workload has been given to somebody else.
func TestASourceThatComesBackLateDoesNotActOnAVerdictThatTheRecordHasMovedOnFrom(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta").failAt = workerapi.StepHeld
		c.addHost("gamma")
		c.run("redis", "alpha")
		id := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID).ID
		m := must(c.coordinators["c1"].migrationRecord(id))(t)
		if c.coordinators["c1"].movedOn(m) {
			t.Error("the record has moved on from the verdict on a workload that nobody has touched since")
		}
		if got := c.finish(c.migrate("redis", "gamma", workerapi.MoveOptions{}).ID); got.Phase != migration.Done {
			t.Fatalf("it ended %s", got.Phase)
		}
		if !c.coordinators["c1"].movedOn(m) {
			t.Error("the old ABORT still gives redis to alpha, though it is on gamma")
		}
	})
}
