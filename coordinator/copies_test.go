package coordinator

import (
	"testing"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// leaveCopy runs redis on alpha and moves it to beta, with a fenced copy left behind.
func (c *cluster) leaveCopy() (alpha, beta *fakeWorker) {
	c.t.Helper()
	alpha, beta = c.addHost("alpha"), c.addHost("beta")
	c.run("redis", "alpha")
	if m := c.finish(c.migrate("redis", "beta", workerapi.MoveOptions{SourceFinalState: migration.Stopped}).ID); m.Phase != migration.Done {
		c.t.Fatalf("it ended %s: %s", m.Phase, m.Reason)
	}
	c.waitFor("the copy is heard of", func() bool { return len(must(c.any().Workload(c.t.Context(), "redis"))(c.t).Copies) == 1 })
	return alpha, beta
}

// has fails the test unless the record and both hosts are as they should be.
func (c *cluster) has(owner string, epoch migration.Epoch, runsOn string) {
	c.t.Helper()
	w := must(c.any().Workload(c.t.Context(), "redis"))(c.t)
	if on := c.world.runsOn("redis"); w.Owner != owner || w.Epoch != epoch || on != runsOn {
		c.t.Errorf("redis is %s's at epoch %d and runs on %q; want %s, %d, %q", w.Owner, w.Epoch, on, owner, epoch, runsOn)
	}
}

func TestAFencedCopyIsContinuedOnlyByForceAndOnlyOnceTheOwnersTreeHasEnded(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		alpha, _ := c.leaveCopy()
		there := api.ContinueOptions{Host: "alpha"}
		_, err := c.any().Continue(t.Context(), "redis", there)
		wantKind(t, "without force", err, errs.Refused)
		there.Force = true
		_, err = c.any().Continue(t.Context(), "redis", there)
		wantKind(t, "while it runs on beta", err, errs.Refused)
		there.Off = "beta"
		_, err = c.any().Continue(t.Context(), "redis", there)
		wantKind(t, "while it runs on beta, which is said to be off", err, errs.Refused)
		c.has("beta", 2, "beta")
		must(c.any().Stop(t.Context(), "redis", 0, 0))(t)
		_, err = c.any().Continue(t.Context(), "redis", api.ContinueOptions{Host: "alpha"})
		wantKind(t, "without force, once it has ended on beta", err, errs.Refused)
		for range 2 { // the second changes nothing
			w := must(c.any().Continue(t.Context(), "redis", api.ContinueOptions{Host: "alpha", Force: true}))(t)
			if w.Owner != "alpha" || w.Status.State != workload.Running || w.Epoch != 3 {
				t.Errorf("given back, it is %s on %s at epoch %d", w.Status.State, w.Owner, w.Epoch)
			}
		}
		c.has("alpha", 3, "alpha")
		if alpha.trees["redis"].epoch != 3 {
			t.Errorf("alpha thinks of epoch %d", alpha.trees["redis"].epoch)
		}
	})
}

func TestAFencedCopyIsContinuedOnAnOperatorsWordIfTheOwnerIsSilent(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		_, beta := c.leaveCopy()
		beta.stop()
		c.net.Kill("beta")
		c.world.mu.Lock()
		c.world.halt("redis", "beta")
		c.world.mu.Unlock()
		c.waitFor("beta is silent", func() bool {
			hosts := must(c.any().Hosts(t.Context()))(t)
			return hosts[1].State == "silent"
		})
		for _, off := range []string{"", "alpha"} {
			_, err := c.any().Continue(t.Context(), "redis", api.ContinueOptions{Host: "alpha", Force: true, Off: off})
			wantKind(t, "with "+off+" said to be off", err, errs.Refused)
		}
		c.has("beta", 2, "")
		must(c.any().Continue(t.Context(), "redis", api.ContinueOptions{Host: "alpha", Force: true, Off: "beta"}))(t)
		c.has("alpha", 3, "alpha")
	})
}

func TestAContinuationThatFailedAfterTheRecordMovedIsTakenUpAgain(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.leaveCopy()
		must(c.any().Stop(t.Context(), "redis", 0, 0))(t)
		c.world.fail(fault{host: "alpha", call: "Continue"})
		_, err := c.any().Continue(t.Context(), "redis", api.ContinueOptions{Host: "alpha", Force: true})
		wantKind(t, "a lost call", err, errs.Unavailable)
		c.has("alpha", 3, "")
		must(c.any().Continue(t.Context(), "redis", api.ContinueOptions{}))(t)
		c.has("alpha", 3, "alpha")
	})
}

func TestACopyIsRemovedFromItsHostAndTheWorkloadLivesOn(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		alpha, beta := c.leaveCopy()
		err := c.any().Remove(t.Context(), "redis", api.RemoveOptions{})
		wantKind(t, "the workload, while there is a copy", err, errs.Conflict)
		err = c.any().Remove(t.Context(), "redis", api.RemoveOptions{Host: "gamma"})
		wantKind(t, "on a host that there is not", err, errs.NotFound)
		if err := c.any().Remove(t.Context(), "redis", api.RemoveOptions{Host: "alpha"}); err != nil {
			t.Fatal(err)
		}
		err = c.any().Remove(t.Context(), "redis", api.RemoveOptions{Host: "alpha"})
		wantKind(t, "a second time", err, errs.NotFound)
		c.has("beta", 2, "beta")
		if len(alpha.trees) != 0 || len(beta.trees) != 1 {
			t.Errorf("alpha has %d trees and beta %d", len(alpha.trees), len(beta.trees))
		}
	})
}

func TestACopyThatItsHostHasNoMoreIsInNobodysWay(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		alpha, beta := c.leaveCopy()
		c.world.mu.Lock()
		delete(alpha.trees, "redis") // the leader has yet to hear of it
		c.world.mu.Unlock()
		must(c.any().Stop(t.Context(), "redis", 0, 0))(t)
		if err := c.any().Remove(t.Context(), "redis", api.RemoveOptions{}); err != nil || len(beta.trees) != 0 {
			t.Errorf("it is in the way: %v", err)
		}
	})
}

func TestTheLastCopyIsRemovedOnlyByForce(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		alpha, beta := c.leaveCopy()
		must(c.any().Stop(t.Context(), "redis", 0, 0))(t)
		err := c.any().Remove(t.Context(), "redis", api.RemoveOptions{Host: "alpha"})
		wantKind(t, "the copy of what has ended", err, errs.Conflict)
		err = c.any().Remove(t.Context(), "redis", api.RemoveOptions{})
		wantKind(t, "the workload, while there is a copy", err, errs.Conflict)
		if err := c.any().Remove(t.Context(), "redis", api.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		if len(alpha.trees)+len(beta.trees) != 0 || len(must(c.any().Workloads(t.Context()))(t)) != 0 {
			t.Error("something is left")
		}
	})
}
