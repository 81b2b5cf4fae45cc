package session

import (
	"math"
	"testing"
	"time"

	"drover/engine/track"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// rounds makes reports of rounds that found so many pages each and sent them at 100 MB/s.
func rounds(found ...uint64) []lap {
	var out []lap
	before := time.Duration(0)
	for i, n := range found {
		out = append(out, round(i+1, n, before, 0, found[0]))
		before = out[i].Took
	}
	return out
}

func round(n int, found uint64, since time.Duration, throttle int, pages uint64) lap {
	wire := found * 4096
	took := max(time.Duration(float64(wire)/100e6*float64(time.Second)), 50*time.Millisecond)
	r := workerapi.Round{N: n, Track: track.RoundStats{Emitted: found, Scanned: pages}, PagesSent: found, WireBytes: wire, Took: took}
	return lap{Round: r, since: since, throttle: throttle}
}

func TestWhenRoundsHaveDoneWhatTheyCan(t *testing.T) {
	const pages = 50_000 // 200 MB
	fast := limits{rounds: 8, downtime: 300 * time.Millisecond}
	strict := limits{rounds: 8, downtime: 300 * time.Millisecond, strict: true}
	for _, c := range []struct {
		why    string
		limits limits
		rounds []lap
		want   choice
	}{
		{"after the first round nothing is known", limits{rounds: 8, downtime: 600 * time.Millisecond}, rounds(pages), again},
		{"a tree that is idle", limits{rounds: 8, downtime: 600 * time.Millisecond}, rounds(pages, 10), ready},
		{"each round is smaller", fast, rounds(pages, 20_000, 9_000), again},
		{"rounds stopped shrinking", fast, rounds(pages, 20_000, 19_000), ready},
		{"no rounds are left", limits{rounds: 2, downtime: 300 * time.Millisecond}, rounds(pages, 20_000), ready},
		{"stopped shrinking, and strict", strict, rounds(pages, 20_000, 19_000), giveUp},
		{"shrinking, and strict", strict, rounds(pages, 20_000, 9_000), again},
		{"one round allowed, and strict", limits{rounds: 1, downtime: 300 * time.Millisecond, strict: true}, rounds(pages), giveUp},
		{"stopped shrinking, but patient", limits{rounds: 8, downtime: 300 * time.Millisecond, patience: time.Second}, rounds(pages, 20_000, 19_000), again},
		{"stopped shrinking, and may be slowed down", limits{rounds: 8, downtime: 300 * time.Millisecond, throttle: 80}, rounds(pages, 20_000, 19_000), again},
	} {
		o := look(c.rounds, pages, imaged)
		if _, got := (course{}).step(c.limits, c.rounds, o); got != c.want {
			t.Errorf("%s: choice %d, want %d (outlook %+v)", c.why, got, c.want, o)
		}
	}
}

// program is a tree in a table: how many pages it dirties a second, by how long it has been copied, and how much of that a
// throttle leaves.
type program func(at time.Duration) float64

// costly is what a cut-over costs in tests of policies, whatever it costs in truth.
var costly = costs{way: wayWatched, fixed: 110 * time.Millisecond, page: perGiB(400 * time.Millisecond), dirty: perGiB(1500 * time.Millisecond)}

// travel plays a source: rounds of a program until the course ends.
func travel(t *testing.T, l limits, pages uint64, writes program) (c course, do choice, laps []lap, levels []int) {
	t.Helper()
	at, before, throttle, looked := time.Duration(0), time.Duration(0), 0, 0
	for n := 1; n < 500; n++ {
		found := pages
		if n > 1 {
			found = evenly(writes(at)*float64(100-throttle)/100, before, pages)
		}
		laps = append(laps, round(n, found, before, looked, pages))
		looked = throttle
		c, do = c.step(l, laps, look(laps, pages, costly))
		if c.throttle != throttle {
			throttle = c.throttle
			levels = append(levels, throttle)
		}
		if do != again {
			return c, do, laps, levels
		}
		before = laps[n-1].Took + c.rest(l, laps[n-1])
		at += before
	}
	t.Fatal("it never ended")
	return
}

// evenly is how many of its pages a tree has written in that time, if it draws them at random.
func evenly(rate float64, in time.Duration, pages uint64) uint64 {
	return uint64(float64(pages) * -math.Expm1(-rate*in.Seconds()/float64(pages)))
}

func steady(rate float64) program { return func(time.Duration) float64 { return rate } }

func TestPoliciesOnTreesThatNeverSettle(t *testing.T) {
	const pages = 65_536 // 256 MB; the link takes 24,400 pages a second
	resolved := func(p migration.Policy) limits { return limitsOf(workerapi.MoveOptions{Policy: p}) }
	quietAt := func(from, to time.Duration) program {
		return func(at time.Duration) float64 {
			if at >= from && at < to {
				return 100
			}
			return 30_000
		}
	}
	for _, c := range []struct {
		why      string
		policy   migration.Policy
		writes   program
		want     choice
		within   bool
		throttle int
	}{
		{"idle, gentle", migration.Gentle, steady(100), ready, true, 0},
		{"idle, must-move", migration.MustMove, steady(100), ready, true, 0},
		{"busy: fast goes over the budget at once", migration.Fast, steady(30_000), ready, false, 0},
		{"busy: gentle waits and gives up", migration.Gentle, steady(30_000), giveUp, false, 0},
		{"busy: must-move slows it down until it fits", migration.MustMove, steady(32_000), ready, true, 80},
		{"a little too busy: it is slowed down no more than it needs", migration.MustMove, steady(21_500), ready, true, 60},
		{"far too busy: must-move goes over the budget, slowed down", migration.MustMove, steady(200_000), ready, false, 80},
		{"a quiet moment: gentle finds it", migration.Gentle, quietAt(20*time.Second, 25*time.Second), ready, true, 0},
		{"a quiet moment: must-move finds it before it slows anything down", migration.MustMove, quietAt(9*time.Second, 14*time.Second), ready, true, 0},
	} {
		l := resolved(c.policy)
		_, do, laps, levels := travel(t, l, pages, c.writes)
		o := look(laps, pages, costly)
		top := 0
		for i, level := range levels {
			if level != min(throttleStep*(i+1), l.throttle) {
				t.Errorf("%s: it was slowed down by %v", c.why, levels)
			}
			top = level
		}
		if do != c.want || (o.blackout <= l.downtime) != c.within || top != c.throttle {
			t.Errorf("%s: choice %d after %d rounds, slowed by %d, %s predicted; want %d, within %v, %d", c.why, do, len(laps), top, o.blackout, c.want, c.within, c.throttle)
		}
	}
}

func TestAWaitIsBounded(t *testing.T) {
	const pages = 65_536
	for _, patience := range []time.Duration{0, time.Second, 10 * time.Second} {
		l := limits{rounds: 8, downtime: 200 * time.Millisecond, strict: true, patience: patience, throttle: 80}
		c, do, _, _ := travel(t, l, pages, steady(200_000))
		if do != giveUp || c.waited < patience {
			t.Errorf("with a patience of %s: choice %d after %s", patience, do, c.waited)
		}
		_, do, laps, _ := travel(t, limits{rounds: 8, downtime: l.downtime, patience: patience}, pages, func(at time.Duration) float64 {
			return 30_000 + 20_000*float64(at.Milliseconds()%7) // no round is ever as good as the one before it
		})
		if do != ready || len(laps) > 200 {
			t.Errorf("with a patience of %s: choice %d after %d rounds", patience, do, len(laps))
		}
	}
}

// A round that began before the throttle was raised says too little: each level is judged by a round that had all of it.
func TestAThrottleIsJudgedByARoundOfItsOwn(t *testing.T) {
	_, _, laps, levels := travel(t, limits{rounds: 3, downtime: 150 * time.Millisecond, throttle: 60}, 65_536, steady(200_000))
	if len(levels) != 3 || len(laps) < 3+2*len(levels) {
		t.Errorf("levels %v in %d rounds", levels, len(laps))
	}
}

func TestAGentleSourceRestsAsLongAsItWorks(t *testing.T) {
	l := limitsOf(workerapi.MoveOptions{Policy: migration.Gentle})
	for _, took := range []time.Duration{time.Millisecond, time.Second, time.Hour} {
		rest := course{}.rest(l, lap{Round: workerapi.Round{Took: took}})
		if rest < lightRound || rest < min(took, longestRest) || rest > longestRest {
			t.Errorf("after a round of %s it rests for %s", took, rest)
		}
	}
	if rest := (course{}).rest(limitsOf(workerapi.MoveOptions{}), lap{Round: workerapi.Round{Took: time.Second}}); rest != 0 {
		t.Errorf("a fast one rests for %s", rest)
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

// From the end of the throttle to the freeze the tree writes as fast as ever.
func TestAPredictionReckonsWithTheThrottlesEnd(t *testing.T) {
	laps := []lap{round(1, 50_000, 0, 0, 50_000), round(2, 2_000, time.Second, 80, 50_000)}
	slowed := look(laps, 50_000, watched)
	laps[1].throttle = 0
	if free := look(laps, 50_000, watched); slowed.blackout <= free.blackout {
		t.Errorf("slowed %s, free %s", slowed.blackout, free.blackout)
	}
}
