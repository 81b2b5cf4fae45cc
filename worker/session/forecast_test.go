package session

import (
	"testing"
	"time"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// rehearsal are the two rounds of a dry run of a tree that writes so many pages a second.
func rehearsal(pages uint64, rate float64) []lap {
	first := round(1, pages, 0, 0, pages)
	return []lap{first, round(2, evenly(rate, first.Took, pages), first.Took, 0, pages)}
}

// A forecast is the same steps over rounds that are reckoned instead of made: it must come to what a source comes to.
func TestAForecastComesToWhatTheMoveComesTo(t *testing.T) {
	const pages = 65_536
	for _, policy := range []migration.Policy{migration.Gentle, migration.Fast, migration.MustMove} {
		for _, rate := range []float64{0, 100, 5_000, 15_000, 21_500, 30_000, 200_000} {
			l := limitsOf(workerapi.MoveOptions{Policy: policy})
			c, do, laps, _ := travel(t, l, pages, steady(rate))
			o := look(laps, pages, costly)
			f := forecast(l, rehearsal(pages, rate), pages, costly)
			want := workerapi.EndsOver
			switch {
			case do == giveUp:
				want = workerapi.EndsGivingUp
			case o.blackout <= l.downtime:
				want = workerapi.EndsWithin
			}
			took, wire := time.Duration(0), uint64(0)
			for i, r := range laps {
				took, wire = took+r.Took, wire+r.WireBytes
				if i > 0 {
					took += r.since - laps[i-1].Took
				}
			}
			near := func(got, want float64) bool { return got > 0.8*want && got < 1.25*want }
			blackout := near(float64(f.Blackout), float64(o.blackout)) || rate > 100_000 // nobody can tell how often it wrote all
			if f.Ends != want || f.Throttle != c.throttle || !blackout || !near(f.Took.Seconds(), took.Seconds()) {
				t.Errorf("%s at %.0f pages a second: %+v; want %s, throttle %d, %s, took %s, %d bytes", policy, rate, f, want, c.throttle, o.blackout, took, wire)
			}
		}
	}
}

func TestAForecastOfATreeThatFitsAtOnceHasOneRound(t *testing.T) {
	f := forecast(limitsOf(workerapi.MoveOptions{}), rehearsal(500, 10), 500, watched)
	if f.Rounds != 1 || f.Ends != workerapi.EndsWithin || f.Throttle != 0 {
		t.Errorf("%+v", f)
	}
}

// A limit holds while the tree runs; in the freeze there is none, and the rounds under it say nothing about the link.
func TestALimitIsNotTakenForTheLink(t *testing.T) {
	laps := rehearsal(50_000, 5_000) // 100 MB/s
	free := look(laps, 50_000, watched)
	for i := range laps {
		laps[i].Took *= 20
		laps[i].limit = 5e6
	}
	if limited := look(laps, 50_000, watched); limited.rate != rateUnknown {
		t.Errorf("under a limit of 5 MB/s it goes by %.0f bytes a second", limited.rate)
	}
	for i := range laps {
		laps[i].limit = 500e6
	}
	if slow := look(laps, 50_000, watched); slow.rate > free.rate/10 {
		t.Errorf("a slow link is taken for %.0f bytes a second", slow.rate)
	}
}

func TestTimeThatWasLeftToOthersIsNotTakenForTheLink(t *testing.T) {
	round := workerapi.Round{N: 1, PagesSent: 10_000, WireBytes: 40e6, Took: 4 * time.Second}
	if o := look([]lap{{Round: round, paced: 3 * time.Second}}, 10_000, watched); o.rate != 40e6 {
		t.Errorf("40 MB that took 4 s, 3 of them of waiting: %.0f bytes a second", o.rate)
	}
	if o := look([]lap{{Round: round, paced: 4 * time.Second}}, 10_000, watched); o.rate != rateUnknown {
		t.Errorf("of nothing but waiting: %.0f bytes a second", o.rate)
	}
}

// Each mapping is made anew, whatever memory is in it: a tree of many stands still for longer than its memory says.
func TestManyMappingsAreExpectedToTakeTime(t *testing.T) {
	laps, l := rehearsal(500, 10), limitsOf(workerapi.MoveOptions{})
	few, fewAhead := look(laps, 500, watched).blackout, forecast(l, laps, 500, watched).Blackout
	for i := range laps {
		laps[i].Track.Mappings = 20_000
	}
	many, manyAhead := look(laps, 500, watched).blackout, forecast(l, laps, 500, watched).Blackout
	if want := 20_000 * eachMapping; many-few != want || manyAhead-fewAhead < want*3/4 {
		t.Errorf("20,000 mappings are expected to take %s, and forecast to take %s", many-few, manyAhead-fewAhead)
	}
}
