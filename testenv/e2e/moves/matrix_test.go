package moves

import "testing"

func TestTheMatrixHasEachPointOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range points() {
		if seen[p.String()] {
			t.Errorf("twice: %s", p)
		}
		seen[p.String()] = true
	}
	if len(seen) < 120 {
		t.Errorf("%d points", len(seen))
	}
	t.Logf("%d points", len(seen))
}
