package coordinator

import (
	"strings"
	"testing"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

func TestAMigrationGoesFromAdmittedToDone(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta")
		c.run("redis", "alpha")
		m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID)
		if m.Phase != migration.Done || m.Verdict != migration.Commit {
			t.Errorf("it ended %s (%s): %s", m.Phase, m.Verdict, m.Reason)
		}
		if on := c.world.runsOn("redis"); on != "beta" {
			t.Errorf("redis runs on %q", on)
		}
		w := must(c.any().Workload(t.Context(), "redis"))(t)
		if w.Owner != "beta" || w.Epoch != 2 || w.Migration != "" {
			t.Errorf("the record has it on %s at epoch %d, moved by %q", w.Owner, w.Epoch, w.Migration)
		}
		if m.Blackout < 60*time.Millisecond || m.Blackout > 80*time.Millisecond {
			t.Errorf("the blackout is %s; the hosts took 60 ms", m.Blackout)
		}
		d := m.Downtime
		if d.Budget != migration.DefaultDowntime || d.Predicted != 50*time.Millisecond || d.Measured != m.Blackout || d.Missed || d.Error < 20 || d.Error > 60 {
			t.Errorf("against the budget and the prediction it is %+v", d)
		}
	})
}

func TestWhateverPhaseTheLeaderDiesInTheNextOneFinishes(t *testing.T) {
	for _, phase := range []migration.Phase{migration.Admitted, migration.Copying, migration.Frozen, migration.Committed, migration.Released} {
		t.Run(string(phase), func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, c *cluster) {
				c.addHost("alpha")
				c.addHost("beta")
				c.run("redis", "alpha")
				id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
				c.reaches(id, phase)
				dead := c.leader()
				c.kill(dead)
				began := time.Now()
				c.waitFor("another one leads", func() bool { return c.leader() != nil })
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("the dead leader was replaced after %s", took)
				}
				m := c.finish(id)
				if m.Phase != migration.Done {
					t.Errorf("it ended %s: %s", m.Phase, m.Reason)
				}
				if on := c.world.runsOn("redis"); on != "beta" {
					t.Errorf("redis runs on %q", on)
				}
			})
		})
	}
}

func TestALostRequestOrReplyChangesNothing(t *testing.T) {
	for _, at := range []struct{ host, call string }{
		{"beta", "Open target"}, {"alpha", "Open source"}, {"alpha", "CutOver"}, {"beta", "Decide commit"}, {"alpha", "Decide commit"},
		{"alpha", "Confirm"}, {"beta", "Confirm"}, {"beta", "Session"},
	} {
		for when, after := range map[string]bool{"before": false, "after": true} {
			t.Run(at.call+" on "+at.host+" is lost "+when+" it acts", func(t *testing.T) {
				inBubble(t, 1, func(t *testing.T, c *cluster) {
					c.addHost("alpha")
					c.addHost("beta")
					c.run("redis", "alpha")
					lost := c.world.fail(fault{host: at.host, call: at.call, after: after, times: 3})
					if m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID); m.Phase != migration.Done {
						t.Errorf("it ended %s: %s", m.Phase, m.Reason)
					}
					if on := c.world.runsOn("redis"); on != "beta" {
						t.Errorf("redis runs on %q", on)
					}
					if lost.times == 3 {
						t.Errorf("%s was never called on %s", at.call, at.host)
					}
				})
			})
		}
	}
}

func TestEveryCallDeliveredTwiceChangesNothing(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.world.twice = true
		c.addHost("alpha")
		c.addHost("beta")
		c.run("redis", "alpha")
		if m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID); m.Phase != migration.Done || c.world.runsOn("redis") != "beta" {
			t.Errorf("it ended %s: %s; redis runs on %s", m.Phase, m.Reason, c.world.runsOn("redis"))
		}
	})
}

func TestATargetThatCannotRebuildLeavesTheSourceRunning(t *testing.T) {
	for _, step := range []workerapi.Step{workerapi.StepStaged, workerapi.StepHeld} {
		t.Run(string(step), func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, c *cluster) {
				c.addHost("alpha")
				c.addHost("beta").failAt = step
				c.run("redis", "alpha")
				m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID)
				if m.Phase != migration.RolledBack || m.Verdict != migration.Abort || !strings.Contains(m.Reason, "redis is missing") {
					t.Errorf("it ended %s (%s): %s", m.Phase, m.Verdict, m.Reason)
				}
				if on := c.world.runsOn("redis"); on != "alpha" {
					t.Errorf("redis runs on %q", on)
				}
			})
		})
	}
}

func TestATargetThatDiesInProbationGivesTheTreeBack(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		beta := c.addHost("beta")
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		c.reaches(id, migration.Released)
		beta.die("redis", 4)
		m := c.finish(id)
		if m.Phase != migration.RolledBack || m.Verdict != migration.Reclaim || !strings.Contains(m.Reason, "signal 4") {
			t.Errorf("it ended %s (%s): %s", m.Phase, m.Verdict, m.Reason)
		}
		w := must(c.any().Workload(t.Context(), "redis"))(t)
		if c.world.runsOn("redis") != "alpha" || w.Owner != "alpha" || w.Epoch != 3 {
			t.Errorf("redis runs on %q and belongs to %s at epoch %d", c.world.runsOn("redis"), w.Owner, w.Epoch)
		}
	})
}

func TestATargetThatNeverRanGivesTheTreeBack(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta").failAt = workerapi.StepReleased
		c.run("redis", "alpha")
		m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID)
		if m.Phase != migration.RolledBack || m.Verdict != migration.Reclaim || c.world.runsOn("redis") != "alpha" {
			t.Errorf("it ended %s (%s): %s; redis runs on %q", m.Phase, m.Verdict, m.Reason, c.world.runsOn("redis"))
		}
	})
}

// The next leader has the record alone: that the tree never ran on the target it must ask the target.
func TestANextLeaderTooGivesBackATreeThatNeverRan(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta").failAt = workerapi.StepReleased
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		c.reaches(id, migration.Committed)
		c.kill(c.leader())
		m := c.finish(id)
		if m.Phase != migration.RolledBack || m.Verdict != migration.Reclaim || c.world.runsOn("redis") != "alpha" {
			t.Errorf("it ended %s (%s): %s; redis runs on %q", m.Phase, m.Verdict, m.Reason, c.world.runsOn("redis"))
		}
	})
}

func TestAnUnreachableTargetIsNoReasonToReclaim(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta")
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		c.reaches(id, migration.Released)
		c.net.Cut("c1", "beta")
		time.Sleep(time.Minute) //nolint:forbidigo // a bubble's time
		m := must(c.any().Migration(t.Context(), id))(t)
		if m.Phase != migration.Released || !strings.Contains(m.Reason, "beta does not answer") {
			t.Errorf("after a minute it is %s: %q", m.Phase, m.Reason)
		}
		c.net.Heal("c1", "beta")
		if m := c.finish(id); m.Phase != migration.Done || m.Reason != "" {
			t.Errorf("it ended %s: %s", m.Phase, m.Reason)
		}
	})
}

func TestTheDeadlineAborts(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha").copyFor = time.Hour
		c.addHost("beta")
		c.run("redis", "alpha")
		began := time.Now()
		m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{Deadline: time.Minute}).ID)
		if m.Verdict != migration.Abort || !strings.Contains(m.Reason, "deadline") || time.Since(began) > 65*time.Second {
			t.Errorf("after %s: %s (%s): %s", time.Since(began), m.Phase, m.Verdict, m.Reason)
		}
		if on := c.world.runsOn("redis"); on != "alpha" {
			t.Errorf("redis runs on %q", on)
		}
	})
}

// The hosts answer, but nothing comes over: the link between them died in the freeze.
func TestACutOverThatHangsIsGivenUpThroughTheLog(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{0: 30 * time.Second, 3 * time.Second: 3 * time.Second} {
		inBubble(t, 3, func(t *testing.T, c *cluster) {
			c.addHost("alpha")
			c.addHost("beta").restoreFor = time.Hour
			c.run("redis", "alpha")
			id := c.migrate("redis", "beta", workerapi.MoveOptions{FreezeDeadline: asked}).ID
			c.reaches(id, migration.Frozen)
			began := time.Now()
			m := c.finish(id)
			if m.Verdict != migration.Abort || !strings.Contains(m.Reason, "took longer than "+want.String()) || time.Since(began) > want+5*time.Second {
				t.Errorf("asked for %s: after %s: %s (%s): %s", asked, time.Since(began), m.Phase, m.Verdict, m.Reason)
			}
			if on := c.world.runsOn("redis"); on != "alpha" {
				t.Errorf("redis runs on %q", on)
			}
		})
	}
}

func TestAFrozenTreeDoesNotWaitLongForASilentTarget(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta").restoreFor = time.Hour
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		c.reaches(id, migration.Frozen)
		began := time.Now()
		c.net.Cut("c1", "beta")
		c.waitFor("redis runs again", func() bool { return c.world.runsOn("redis") == "alpha" })
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it stood still for %s", took)
		}
		c.net.Heal("c1", "beta")
		if m := c.finish(id); m.Phase != migration.RolledBack {
			t.Errorf("it ended %s: %s", m.Phase, m.Reason)
		}
	})
}

func TestASessionOpenedTooLateIsEnded(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		beta := c.addHost("beta")
		c.run("redis", "alpha")
		c.world.fail(fault{host: "beta", call: "Open target", err: errs.New(errs.Refused, "no room")})
		m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{}).ID)
		if m.Phase != migration.RolledBack {
			t.Fatalf("it ended %s", m.Phase)
		}
		late := workerapi.OpenRequest{Migration: m.ID, Role: migration.Target, Epoch: 1, Spec: workload.Spec{Name: "redis"}}
		must(beta.Open(t.Context(), late))(t)
		c.waitFor("beta has ended it", func() bool {
			st := must(beta.Session(t.Context(), m.ID))(t)
			return st.Step == workerapi.StepUndone
		})
	})
}
