package moves

import "testing"

func TestTheMatrixHasEachPointOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range points(matrix) {
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

func TestTheFixedDeathsAreOfTheMatrix(t *testing.T) {
	ends := map[string]ending{}
	for _, p := range points(matrix) {
		ends[p.String()] = p.ends
	}
	for _, p := range points(deaths) {
		if e, ok := ends[p.String()]; !ok || e != p.ends && e != either {
			t.Errorf("%s ends: %q, by the matrix: %q", p, p.ends, e)
		}
	}
}
