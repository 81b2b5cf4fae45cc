package session

import (
	"math"
	"testing"
	"time"

	workerapi "drover/worker/api"
)

func TestWhatMovesTookCorrectsWhatIsExpected(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	move := func(way string, own, took int) workerapi.PastMove {
		return workerapi.PastMove{Way: way, Own: ms(own), Took: ms(took)}
	}
	many := func(n int, m workerapi.PastMove) (all []workerapi.PastMove) {
		for range n {
			all = append(all, m)
		}
		return all
	}
	for _, c := range []struct {
		why      string
		past     []workerapi.PastMove
		from, to float64
	}{
		{"nothing is known", nil, 1, 1},
		{"one move took twice as long", []workerapi.PastMove{move(wayWatched, 200, 400)}, 1.7, 2},
		{"all of them did", many(16, move(wayWatched, 200, 400)), 1.9, 2},
		{"another way says nothing", many(16, move(wayImaged, 200, 400)), 1, 1},
		{"a small tree says little of a large one", []workerapi.PastMove{move(wayWatched, 20, 100)}, 1, 2.2},
		{"the newest counts most", append(many(1, move(wayWatched, 200, 200)), many(15, move(wayWatched, 200, 400))...), 1, 1.75},
		{"one that was held up is bounded", []workerapi.PastMove{move(wayWatched, 200, 60_000)}, 1, 5},
		{"a faster host", many(16, move(wayWatched, 200, 80)), 0.4, 0.5},
	} {
		if got := scale(c.past, wayWatched, 200*time.Millisecond); got < c.from-1e-9 || got > c.to+1e-9 {
			t.Errorf("%s: %.3f, want %.2f to %.2f", c.why, got, c.from, c.to)
		}
	}
}

// A host where everything takes 1.8 times as long, give or take a tenth, is known after a few moves.
func TestPredictionsComeWithinAQuarter(t *testing.T) {
	var past []workerapi.PastMove
	own := func(pages uint64) time.Duration { return look(rounds(pages, 10), pages, watched).own }
	for n := range 12 {
		raw := own(uint64(20_000 + 5_000*(n%5)))
		real := time.Duration(float64(raw) * (1.8 + 0.15*math.Sin(float64(n))))
		guess := time.Duration(float64(raw) * scale(past, wayWatched, raw))
		if off := math.Abs(real.Seconds()/guess.Seconds() - 1); n >= 2 && off > 0.25 {
			t.Errorf("move %d: %s expected, %s taken: %.0f %% off", n, guess, real, 100*off)
		}
		past = append([]workerapi.PastMove{{Way: wayWatched, Own: raw, Took: real}}, past...)
	}
}
