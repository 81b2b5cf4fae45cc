package coordinator

import (
	"slices"
	"testing"

	workerapi "drover/worker/api"
)

// TestAHostHearsOfWhichWorkloadsItKeepsPagesInVain: of those that are not in the record, that live there, and of a later life of which it
// knows more than the record.
func TestAHostHearsOfWhichWorkloadsItKeepsPagesInVain(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		alpha := c.addHost("alpha")
		beta := c.addHost("beta")
		c.run("redis", "alpha")
		epoch := must(c.any().Workload(t.Context(), "redis"))(t).Epoch
		forgets := func(h *fakeWorker, names ...string) func() bool {
			return func() bool { c.world.mu.Lock(); defer c.world.mu.Unlock(); return slices.Equal(h.forget, names) }
		}
		keep := func(h *fakeWorker, kept ...workerapi.Kept) {
			c.world.mu.Lock()
			defer c.world.mu.Unlock()
			h.kept, h.forget = kept, []string{"nothing heard yet"}
		}
		keep(alpha, workerapi.Kept{Workload: "redis", Epoch: epoch})
		keep(beta, workerapi.Kept{Workload: "gone", Epoch: 1}, workerapi.Kept{Workload: "redis", Epoch: epoch})
		c.waitFor("alpha knows that redis lives there", forgets(alpha, "redis"))
		c.waitFor("beta knows that one is gone", forgets(beta, "gone"))
		keep(beta, workerapi.Kept{Workload: "redis", Epoch: epoch + 1})
		c.waitFor("beta knows that it has too new an epoch", forgets(beta, "redis"))
		keep(beta)
		c.waitFor("beta has nothing to forget", forgets(beta))
	})
}
