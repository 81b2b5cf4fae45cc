package moves

import (
	"testing"
	"time"
)

func TestATreeOf50ProcessesAnd400ThreadsMoves(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "large", "alpha", 0, shape{processes: 50, threads: 8, pages: 4, pause: 50 * time.Millisecond})
	m, err := g.Migrate(t.Context(), nil, s.name, "beta")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("blackout %s", m.Blackout)
	s.lives(t, "beta")
	if e := g.evidence(t, m.ID); !e.Complete() {
		t.Errorf("not known: %q, wrong: %q", e.Unknown, e.Wrong)
	}
	s.end(t)
	g.nothingLeft(t, 0)
}

func TestMovesInARowLeaveNothingBehind(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "wanderer", "alpha", 0, small)
	at, other := "alpha", "beta"
	var longest time.Duration
	for n := range *movesInARow {
		m, err := g.Migrate(t.Context(), nil, s.name, other, "--probation", "100ms")
		if err != nil {
			t.Fatalf("move %d, to %s: %v", n+1, other, err)
		}
		longest = max(longest, m.Blackout)
		at, other = other, at
		s.lives(t, at)
	}
	t.Logf("%d moves, longest blackout %s", *movesInARow, longest)
	s.end(t)
	g.nothingLeft(t, 0)
}
