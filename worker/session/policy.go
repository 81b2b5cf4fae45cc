package session

import (
	"time"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// lightRound is the least rest between rounds that only wait: often enough that the copy does not age, seldom enough that an
// idle wait costs little, and long enough that what is found in it says how fast the tree writes.
const lightRound = 250 * time.Millisecond

const (
	mostRounds   = 64 // laps that are kept: light rounds go on for as long as the wait
	throttleStep = 20 // percent
	// longestRest bounds the rest of a gentle source, whose first round may take minutes.
	longestRest = 5 * time.Second
	// moreTries is how many rounds a source goes on, when it has to go over its budget, to find one as good as the best it has seen.
	moreTries = 4
)

// limits are what the user allows a source.
type limits struct {
	rounds   int
	downtime time.Duration
	strict   bool
	patience time.Duration
	throttle int
	gentle   bool // rests between rounds for as long as they take
}

// limitsOf are those of options that have been checked.
func limitsOf(o workerapi.MoveOptions) limits {
	o = o.Resolved()
	return limits{
		rounds: o.MaxRounds, downtime: o.Downtime, strict: *o.DowntimeStrict, patience: *o.Patience, throttle: *o.Throttle,
		gentle: o.Policy == migration.Gentle,
	}
}

// choice is what a source does after a round.
type choice int

const (
	again  choice = iota // another round may make the blackout shorter
	ready                // rounds have done what they can, or enough
	giveUp               // the user would rather not move than wait longer than this
)

// course is how far deciding has come. It is a value: step makes the next one of it.
type course struct {
	settled  bool // rounds have done what they can
	waited   time.Duration
	throttle int           // percent of its time that is to be taken from the tree
	laps     int           // since it was settled, or the throttle was changed
	best     time.Duration // the shortest blackout that was predicted meanwhile
	tries    int           // rounds that were not as good as that
}

// step decides after a round that made this outlook.
func (c course) step(l limits, laps []lap, o outlook) (course, choice) {
	last := laps[len(laps)-1]
	if o.blackout <= l.downtime {
		return c, ready
	}
	if !c.settled {
		if last.N < l.rounds && !stalled(laps) {
			return c, again
		}
		c = course{settled: true, best: o.blackout}
	} else {
		c.waited += last.since
	}
	c.laps, c.best = c.laps+1, min(c.best, o.blackout)
	switch {
	case c.waited < l.patience:
		return c, again
	case c.throttle > 0 && !c.judged(l, laps):
		return c, again
	case c.throttle < l.throttle:
		c.throttle, c.laps, c.best = min(c.throttle+throttleStep, l.throttle), 0, o.blackout
		return c, again
	case l.strict:
		return c, giveUp
	case o.blackout*10 <= c.best*11 || c.tries >= moreTries:
		return c, ready
	}
	c.tries++
	return c, again
}

// judged says whether this much of a throttle has been shown not to be enough. A round that began before it was set says little
// of it; after that, rounds may help again.
func (c course) judged(l limits, laps []lap) bool {
	return c.laps > 1 && (stalled(laps) || c.laps >= l.rounds)
}

// stalled says whether rounds change nothing for the better any more: from the third on, one found nine tenths of what the one
// before it found.
func stalled(laps []lap) bool {
	n := len(laps)
	return n >= 3 && laps[n-1].Track.Emitted*10 >= laps[n-2].Track.Emitted*9
}

// rest is how long to wait before the next round.
func (c course) rest(l limits, last lap) time.Duration {
	switch {
	case l.gentle:
		return min(max(last.Took, lightRound), longestRest)
	case c.settled: // more would let a tree that is slowed down write all that its rounds have gained
		return max(0, lightRound-last.Took)
	}
	return 0
}
