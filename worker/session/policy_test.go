package session

import (
	"testing"
	"time"

	"drover/engine/track"
	workerapi "drover/worker/api"
)

// rounds makes reports of rounds that found so many pages each and sent them at 100 MB/s.
func rounds(found ...uint64) []lap {
	var out []lap
	before := time.Duration(0)
	for i, n := range found {
		wire := n * 4096
		took := max(time.Duration(float64(wire)/100e6*float64(time.Second)), 50*time.Millisecond)
		r := workerapi.Round{N: i + 1, Track: track.RoundStats{Emitted: n, Scanned: found[0]}, PagesSent: n, WireBytes: wire, Took: took}
		out = append(out, lap{r, before})
		before = took
	}
	return out
}

func TestWhenRoundsHaveDoneWhatTheyCan(t *testing.T) {
	const pages = 50_000 // 200 MB
	for _, c := range []struct {
		why    string
		limits limits
		rounds []lap
		want   choice
	}{
		{"after the first round nothing is known", limits{8, 600 * time.Millisecond, false}, rounds(pages), again},
		{"a tree that is idle", limits{8, 600 * time.Millisecond, false}, rounds(pages, 10), ready},
		{"each round is smaller", limits{8, 300 * time.Millisecond, false}, rounds(pages, 20_000, 9_000), again},
		{"rounds stopped shrinking", limits{8, 300 * time.Millisecond, false}, rounds(pages, 20_000, 19_000), ready},
		{"no rounds are left", limits{2, 300 * time.Millisecond, false}, rounds(pages, 20_000), ready},
		{"stopped shrinking, and strict", limits{8, 300 * time.Millisecond, true}, rounds(pages, 20_000, 19_000), giveUp},
		{"shrinking, and strict", limits{8, 300 * time.Millisecond, true}, rounds(pages, 20_000, 9_000), again},
		{"one round allowed, and strict", limits{1, 300 * time.Millisecond, true}, rounds(pages), giveUp},
	} {
		if got := next(c.limits, c.rounds, pages, imaged); got != c.want {
			t.Errorf("%s: choice %d, want %d (outlook %+v)", c.why, got, c.want, look(c.rounds, pages, imaged))
		}
	}
}

func TestAPredictionGrowsWithWhatIsDirtyAndWithTheTree(t *testing.T) {
	idle, busy := look(rounds(50_000, 10), 50_000, imaged), look(rounds(50_000, 20_000), 50_000, imaged)
	if idle.blackout >= busy.blackout {
		t.Errorf("idle %s, busy %s", idle.blackout, busy.blackout)
	}
	small := look(rounds(1_000, 10), 1_000, imaged)
	if small.blackout >= idle.blackout || small.blackout < imaged.fixed {
		t.Errorf("small %s, large %s", small.blackout, idle.blackout)
	}
	if busy.dirtyRate < 9_000 || busy.dirtyRate > 11_000 { // 20,000 pages in the two seconds of the first round
		t.Errorf("dirty rate %.0f pages/s", busy.dirtyRate)
	}
}
