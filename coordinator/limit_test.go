package coordinator

import (
	"slices"
	"testing"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

func TestALimitReachesTheSourceThatCopiesAndItsNextLeader(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		alpha := c.addHost("alpha")
		alpha.copyFor = time.Minute
		c.addHost("beta")
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		c.reaches(id, migration.Copying)
		sends := func(n int64) func() bool {
			return func() bool { return must(alpha.Session(t.Context(), id))(t).Progress.Bandwidth == n }
		}
		must(c.any().LimitMigration(t.Context(), id, 5e6))(t)
		c.waitFor("alpha sends 5 MB/s", sends(5e6))
		c.kill(c.leader())
		c.waitFor("another leads", func() bool { _, err := c.any().LimitMigration(t.Context(), id, 0); return err == nil })
		c.waitFor("alpha is not limited", sends(0))
		c.world.mu.Lock()
		told := slices.DeleteFunc(slices.Clone(alpha.calls), func(call string) bool { return call != "SetBandwidth 5000000" })
		c.world.mu.Unlock()
		if len(told) > 2 {
			t.Errorf("alpha was told %d times", len(told))
		}
		if m := c.finish(id); m.Phase != migration.Done {
			t.Errorf("it ended %s: %s", m.Phase, m.Reason)
		}
		_, err := c.any().LimitMigration(t.Context(), id, 1)
		wantKind(t, "a limit of one that has ended", err, errs.Conflict)
	})
}

func TestAHostHearsOfItsLimitInTheAnswerToItsHeartbeat(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		alpha := c.addHost("alpha")
		has := func(n int64) func() bool {
			return func() bool { c.world.mu.Lock(); defer c.world.mu.Unlock(); return alpha.bandwidth == n }
		}
		if h := must(c.any().LimitHost(t.Context(), "alpha", 9e6))(t); h.Bandwidth != 9e6 {
			t.Errorf("it says %d", h.Bandwidth)
		}
		c.waitFor("alpha knows", has(9e6))
		must(c.any().LimitHost(t.Context(), "alpha", 0))(t)
		c.waitFor("alpha is free", has(0))
		_, err := c.any().LimitHost(t.Context(), "nowhere", 1)
		wantKind(t, "no host", err, errs.NotFound)
	})
}
