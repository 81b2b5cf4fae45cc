package moves

import (
	"strings"
	"testing"
	"time"

	"drover/internal/migration"
	"drover/internal/workload"
	"drover/testenv/host/hosttest"
)

// untilOver leaves a move alone until it has ended.
func untilOver(_ *trial, over <-chan struct{}) { <-over }

func TestAMoveWhoseNetworkStaysAwayEndsAtItsDeadline(t *testing.T) {
	a := newArena(t, []string{"ceres"}, pair)
	m := a.strikeAt(t, point{at: copying, who: theLink, what: cutOff, ends: here}, untilOver, "--deadline", "15s")
	if !strings.Contains(m.Reason, "deadline") {
		t.Errorf("it ended %s, because of %q", m.Phase, m.Reason)
	}
	a.end(t, 0)
}

// The workers cannot reach each other any more while the tree is frozen; the coordinator reaches both.
func TestATreeWhoseLinkDiesInTheFreezeRunsAgainAtItsFreezeDeadline(t *testing.T) {
	a := newArena(t, []string{"ceres"}, pair)
	m := a.strikeAt(t, point{at: frozen, who: theLink, what: cutOff, ends: here}, func(_ *trial, over <-chan struct{}) {
		cutAt := time.Now()
		<-over
		if stood := time.Since(cutAt); stood > 15*time.Second {
			t.Errorf("it was over %s after the cut", stood)
		}
	}, "--freeze-deadline", "3s")
	if !strings.Contains(m.Reason, "the cut-over took longer than 3s") {
		t.Errorf("it ended %s, because of %q", m.Phase, m.Reason)
	}
	a.end(t, 0)
}

func TestAfterTheVerdictTheNetworkBetweenTheHostsIsNotNeeded(t *testing.T) {
	a := newArena(t, []string{"ceres"}, pair)
	for _, at := range []boundary{decided, running} {
		a.strikeAt(t, point{at: at, who: theLink, what: cutOff, ends: there}, untilOver)
	}
	a.end(t, 0)
}

// Before the target holds the tree its host's death can only lead to ABORT: the tree goes on at once, and the migration has ended when
// the target is back and has nothing of it.
func TestASourceGoesOnWhenTheTargetsHostDiesBeforeTheVerdict(t *testing.T) {
	a := newArena(t, []string{"ceres"}, pair)
	a.strikeAt(t, point{at: frozen, who: theHost, role: dst, what: killed, ends: here}, func(c *trial, _ <-chan struct{}) {
		c.comesTo(migration.Aborted)
		if err := c.service.call.goesOn(t); err != nil {
			t.Errorf("the client, while the target is away: %v", err)
		}
	})
	a.end(t, 0)
}

// COMMIT has been recorded, and the target's host dies before it has carried it out. The source then stays held until that is proved: the
// host has booted again.
func TestATreeIsReclaimedWhenItsNewHostHasRebooted(t *testing.T) {
	a := newArena(t, []string{"ceres"}, pair)
	m := a.strikeAt(t, point{at: decided, who: theHost, role: dst, what: killed, ends: here}, nil)
	if m.Verdict != migration.Reclaim {
		t.Errorf("its verdict was %q, because of %q, want %q", m.Verdict, m.Reason, migration.Reclaim)
	}
	a.end(t, 0)
}

// Before the verdict a tree is lost with its host, as it would have been without a migration, and nothing of it is on the target.
func TestATreeIsLostWithItsHostBeforeTheVerdict(t *testing.T) {
	a := newArena(t, []string{"ceres"}, pair)
	m := a.strikeAt(t, point{at: frozen, who: theHost, role: src, what: killed, ends: withHost}, func(c *trial, _ <-chan struct{}) {
		c.comesTo(migration.Aborted)
	})
	if m.Phase != migration.RolledBack || m.Verdict != migration.Abort {
		t.Errorf("it ended %s by %q: %s", m.Phase, m.Verdict, m.Reason)
	}
	hosttest.Eventually(t, "the record knows that the tree has ended with its host", func() bool {
		w, err := a.Workload(t.Context(), struckTree)
		return err == nil && w.Owner == m.Source && w.Migration == "" && w.Status.State == workload.Exited
	})
	for _, w := range a.Workers {
		if n := a.service.copies(w.Host); n != 0 {
			t.Errorf("%d processes of it on %s", n, w.Name)
		}
	}
	a.end(t, 0)
}

func TestATreeRunsOnItsNewHostThoughTheOldOneDiesAfterTheVerdict(t *testing.T) {
	a := newArena(t, []string{"ceres"}, pair)
	a.strikeAt(t, point{at: decided, who: theHost, role: src, what: killed, ends: there}, func(c *trial, _ <-chan struct{}) {
		c.comesTo(migration.Released)
		if err := c.service.call.goesOn(t); err != nil {
			t.Errorf("the client, while the source is away: %v", err)
		}
	})
	a.end(t, 0)
}
