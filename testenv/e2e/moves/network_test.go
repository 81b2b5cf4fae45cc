package moves

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
)

// cut lets nothing pass between the two workers; everybody else reaches both.
func (sc *scene) cut() {
	peer, _, _ := strings.Cut(sc.target.Options.Address, "/")
	hosttest.Run(sc.t, sc.source.Host, "nft", fmt.Sprintf(cutTable, peer))
}

// cutTable lets nothing pass between a host and the address.
const cutTable = `table inet cut {
	chain in { type filter hook input priority 0; ip saddr %[1]s drop; }
	chain out { type filter hook output priority 0; ip daddr %[1]s drop; }
}`

func (sc *scene) heal() { hosttest.Run(sc.t, sc.source.Host, "nft", "delete", "table", "inet", "cut") }

func TestACopyGoesOnWhenItsNetworkComesBack(t *testing.T) {
	const outage = 3 * time.Second
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "patient", "alpha", 0, small)
	m, err := g.move(t, s, copying, func(sc *scene) {
		sc.cut()
		<-time.After(outage)
		sc.heal()
	})
	if err != nil {
		t.Fatal(err)
	}
	s.hasEnded(t, m.ID, atTarget)
	s.end(t)
	g.nothingLeft(t, 0)
}

func TestAMoveWhoseNetworkStaysAwayEndsAtItsDeadline(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "patient", "alpha", 0, small)
	var sc *scene
	m, err := g.move(t, s, copying, func(now *scene) { sc = now; sc.cut() }, "--deadline", "8s")
	if err == nil || !strings.Contains(m.Reason, "deadline") {
		t.Errorf("it ended %s, because of %q: %v", m.Phase, m.Reason, err)
	}
	s.hasEnded(t, m.ID, atSource)
	sc.heal()
	s.end(t)
	g.nothingLeft(t, 0)
}

func TestAfterTheVerdictTheNetworkBetweenTheHostsIsNotNeeded(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	for n, at := range []instant{decided, running} {
		s := g.start(t, "patient", "alpha", n, small)
		var sc *scene
		m, err := g.move(t, s, at, func(now *scene) { sc = now; sc.cut() })
		if err != nil {
			t.Errorf("cut off %s: %v", at, err)
		}
		s.hasEnded(t, m.ID, atTarget)
		sc.heal()
		s.end(t)
		g.nothingLeft(t, 0)
	}
}

// Before the target is held its host's death can only lead to ABORT: the tree goes on at once, and the migration has ended when
// the target is back and has nothing of it.
func TestASourceGoesOnWhenTheTargetsHostDiesBeforeTheVerdict(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "survivor", "alpha", 0, small)
	m, _ := g.move(t, s, frozen, func(sc *scene) {
		sc.hostDies(sc.target)
		sc.then = func(m api.Migration) {
			if m.Phase == migration.Aborted && !sc.target.Up() {
				if err := s.call.goesOn(t); err != nil {
					t.Errorf("the client, while the target is away: %v", err)
				}
				sc.hostComesBack(sc.target)
			}
		}
	})
	s.hasEnded(t, m.ID, atSource)
	s.end(t)
	g.nothingLeft(t, 0)
}

// Once the target has said that it holds the tree, COMMIT may win although its host is dead. The source then stays held until
// that is proved: the host has booted again.
func TestATreeIsReclaimedWhenItsNewHostHasRebooted(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "survivor", "alpha", 0, small)
	m, _ := g.move(t, s, held, func(sc *scene) {
		sc.hostDies(sc.target)
		sc.then = func(m api.Migration) {
			if m.Phase == migration.Committed && !sc.target.Up() {
				sc.hostComesBack(sc.target)
			}
		}
	})
	if m = g.outcome(t, m.ID); m.Verdict != migration.Reclaim {
		t.Errorf("its verdict was %q, because of %q, want %q", m.Verdict, m.Reason, migration.Reclaim)
	}
	s.hasEnded(t, m.ID, atSource)
	s.end(t)
	g.nothingLeft(t, 0)
}

// Before the verdict a tree is lost with its host, as it would have been without a migration, and nothing of it is on the target.
func TestATreeIsLostWithItsHostBeforeTheVerdict(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "mortal", "alpha", 0, small)
	m, _ := g.move(t, s, frozen, func(sc *scene) {
		sc.hostDies(sc.source)
		sc.then = func(m api.Migration) {
			if m.Phase == migration.Aborted && !sc.source.Up() {
				sc.hostComesBack(sc.source)
			}
		}
	})
	if m = g.outcome(t, m.ID); m.Phase != migration.RolledBack || m.Verdict != migration.Abort {
		t.Errorf("it ended %s by %q: %s", m.Phase, m.Verdict, m.Reason)
	}
	hosttest.Eventually(t, "the record knows that the tree has ended with its host", func() bool {
		w, err := g.Workload(t.Context(), s.name)
		return err == nil && w.Owner == "alpha" && w.Migration == "" && w.Status.State == workload.Exited
	})
	for _, w := range g.Workers {
		if n := s.copies(w.Host); n != 0 {
			t.Errorf("%d processes of it on %s", n, w.Name)
		}
	}
	s.end(t)
	g.nothingLeft(t, 0)
}

func TestATreeRunsOnItsNewHostThoughTheOldOneDiesAfterTheVerdict(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "survivor", "alpha", 0, small)
	m, err := g.move(t, s, decided, func(sc *scene) {
		sc.hostDies(sc.source)
		sc.then = func(m api.Migration) {
			if m.Phase == migration.Released && !sc.source.Up() {
				if err := s.call.goesOn(t); err != nil {
					t.Errorf("the client, while the source is away: %v", err)
				}
				sc.hostComesBack(sc.source)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
	s.hasEnded(t, m.ID, atTarget)
	s.end(t)
	g.nothingLeft(t, 0)
}

func (sc *scene) hostDies(m *cluster.Member) {
	if err := m.Kill(sc.t.Context()); err != nil {
		sc.t.Error(err)
	}
}

func (sc *scene) hostComesBack(m *cluster.Member) {
	if err := m.Boot(sc.t.Context()); err != nil {
		sc.t.Error(err)
	}
	sc.restart(m)
}
