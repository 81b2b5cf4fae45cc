package session

import (
	"context"
	"math"
	"time"

	"drover/engine/track"
	workerapi "drover/worker/api"
)

// dryRounds is how many rounds a dry run makes: the second is the first to show what the tree writes.
const dryRounds = 2

const (
	mostForecast = 1000 // rounds
	// mostOfAll is how much of a tree a round may have found for its rate to be reckoned: of one that had written all, nobody knows how
	// often.
	mostOfAll = 0.99
)

// rehearse is work for a dry run: real rounds, then what they say. The tree is never frozen; the session waits to be undone.
func (s *source) rehearse(ctx context.Context) error {
	if err := s.mayThrottle(); err != nil {
		return err
	}
	for range dryRounds {
		if err := s.round(ctx); err != nil {
			return err
		}
	}
	f := forecast(s.limits, s.laps, s.progress().PagesTotal, s.reckoning())
	s.change("dry run", func(st *workerapi.SessionState) { st.Step, st.Progress.Forecast = workerapi.StepReady, &f })
	return nil
}

// forecast plays a course on from the first of the rounds that were made, with a tree and a link that go on as they did in the last.
// The tree's writes are taken to be spread evenly: twice the time does not find twice the pages once it has come round to them.
func forecast(l limits, made []lap, pages uint64, k costs) workerapi.Forecast {
	now, measured, all := look(made, pages, k), made[len(made)-1], float64(max(pages, 1))
	found := min(float64(measured.Track.Emitted)/all, mostOfAll)
	writes := -all / max(measured.since, time.Millisecond).Seconds() * math.Log(1-found)
	idle := max(0, measured.Took-seconds(float64(measured.WireBytes)/now.rate)) // what a round takes that finds nothing

	last := made[0]
	laps := []lap{last}
	out := workerapi.Forecast{DirtyRate: now.dirtyRate, Rate: now.rate, Took: last.Took, WireBytes: last.WireBytes}
	c, do := course{}.step(l, laps, look(laps, pages, k))
	looked := 0
	for do == again && last.N < mostForecast {
		rest := c.rest(l, last)
		since := last.Took + rest
		dirty := all * -math.Expm1(-writes*since.Seconds()*float64(100-c.throttle)/100/all)
		wire := dirty * now.page
		last = lap{since: since, throttle: looked, Round: workerapi.Round{
			N: last.N + 1, Track: track.RoundStats{Scanned: pages, Emitted: uint64(dirty), Mappings: measured.Track.Mappings},
			PagesSent: uint64(dirty), WireBytes: uint64(wire), Took: idle + seconds(wire/now.rate),
		}}
		looked = c.throttle
		laps = append(laps, last)
		out.Took += rest + last.Took
		out.WireBytes += last.WireBytes
		c, do = c.step(l, laps, look(laps, pages, k))
	}
	then := look(laps, pages, k)
	out.Rounds, out.Throttle, out.Blackout = last.N, c.throttle, then.blackout
	out.WireBytes += uint64(then.link.Seconds() * then.rate)
	switch {
	case then.blackout <= l.downtime:
		out.Ends = workerapi.EndsWithin
	case do == giveUp:
		out.Ends = workerapi.EndsGivingUp
	default:
		out.Ends = workerapi.EndsOver
	}
	return out
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
