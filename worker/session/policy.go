package session

import (
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// costs are what a cut-over takes besides sending what is dirty: fixed for freezing, the state that is not memory, the verdict and
// the release; page for each page of the tree, clean or dirty.
type costs struct{ fixed, page time.Duration }

// perGiB turns a time for a GiB into one for a page.
func perGiB(d time.Duration) time.Duration { return d / (1 << 18) }

// What was measured with CRIU 4.2 (make bench, two cores that carry both hosts and the load), for each of the ways that memory
// goes. A loaded host takes longer.
var (
	// CRIU looks at every page, the unchanged ones are named, and the target puts all in place.
	watched = costs{110 * time.Millisecond, perGiB((60 + 40 + 300) * time.Millisecond)}
	// All pages are read and compared by digest besides.
	compared = costs{watched.fixed, watched.page + perGiB(450*time.Millisecond)}
	// CRIU hands all pages over, which are compared, and rebuilds the tree from images.
	imaged = costs{watched.fixed, perGiB((400 + 230 + 450) * time.Millisecond)}
)

const (
	// pageOnWire is what a page costs on the wire while nothing has been measured.
	pageOnWire = 4096 + 64
	// rateUnknown is assumed until something has been sent, in bytes a second: a gigabit.
	rateUnknown = 110e6
	// granting is how long the tree goes on writing after its last round: the leader is asked, and CRIU started.
	granting = 40 * time.Millisecond
	// wireEnough is how much a round must have sent for its rate to say something about the link, in bytes.
	wireEnough = 1 << 20
)

// Defaults of workerapi.MoveOptions.
const (
	defaultRounds   = 8
	mostRounds      = 64
	defaultDowntime = workerapi.DefaultDowntime
)

// limits are what the user allows a source.
type limits struct {
	rounds   int
	downtime time.Duration
	strict   bool
}

func limitsOf(o workerapi.MoveOptions) (limits, error) {
	l := limits{rounds: o.MaxRounds, downtime: o.Downtime, strict: o.DowntimeStrict}
	if l.rounds == 0 {
		l.rounds = defaultRounds
	}
	if l.downtime == 0 {
		l.downtime = defaultDowntime
	}
	switch {
	case l.rounds < 1 || l.rounds > mostRounds:
		return l, errs.New(errs.Invalid, "%d rounds are not possible", o.MaxRounds).WithNext("choose 1 to %d", mostRounds)
	case l.downtime < 0:
		return l, errs.New(errs.Invalid, "a downtime of %s is not possible", o.Downtime)
	}
	return l, nil
}

// lap is a finished round, and how long before its look at the tree the look of the round before it began: what it found was
// written in that time.
type lap struct {
	workerapi.Round
	since time.Duration
}

// outlook is what the rounds so far say about cutting over now.
type outlook struct {
	blackout  time.Duration
	dirtyRate float64 // pages a second
	rate      float64 // bytes a second on the wire
}

// look predicts the blackout of a cut-over after these rounds of a tree with so many pages. After a first round nothing is
// known of what the tree writes: all of it is taken to be dirty.
func look(laps []lap, pages uint64, c costs) outlook {
	o := outlook{rate: rateUnknown}
	bytesPerPage, sent, wire := float64(pageOnWire), uint64(0), uint64(0)
	for _, r := range laps {
		sent, wire = sent+r.PagesSent, wire+r.WireBytes
		if r.WireBytes >= wireEnough && r.Took > 0 {
			o.rate = float64(r.WireBytes) / r.Took.Seconds()
		}
	}
	if sent > 0 {
		bytesPerPage = float64(wire) / float64(sent)
	}
	dirty := float64(pages)
	if n := len(laps); n >= 2 {
		last := laps[n-1]
		o.dirtyRate = float64(last.Track.Emitted) / max(last.since, time.Millisecond).Seconds()
		dirty = min(dirty, o.dirtyRate*(last.Took+granting).Seconds())
		if last.PagesSent > 0 { // most as patches of what the round before has sent
			bytesPerPage = float64(last.WireBytes) / float64(last.PagesSent)
		}
	}
	sending := time.Duration(dirty * bytesPerPage / o.rate * float64(time.Second))
	o.blackout = c.fixed + sending + time.Duration(pages)*c.page
	return o
}

// choice is what a source does after a round.
type choice int

const (
	again  choice = iota // another round will make the blackout shorter
	ready                // rounds have done what they can, or enough
	giveUp               // the user would rather not move than wait longer than this
)

// next decides after a round. Rounds have done what they can when the last two changed nothing for the better: from the
// third on, one that found nine tenths of what the one before it found.
func next(l limits, laps []lap, pages uint64, c costs) choice {
	n := len(laps)
	within := look(laps, pages, c).blackout <= l.downtime
	spent := n >= l.rounds
	if n >= 3 {
		spent = spent || laps[n-1].Track.Emitted*10 >= laps[n-2].Track.Emitted*9
	}
	switch {
	case within:
		return ready
	case !spent:
		return again
	case l.strict:
		return giveUp
	}
	return ready
}

// outcomes are the final states a session's operation ends in.
func outcomes(r migration.Role, o workerapi.MoveOptions) (migration.FinalState, error) {
	if r == migration.Source {
		return o.SourceFinalState.Resolve(migration.OpMigrationDump)
	}
	return o.FinalState.Resolve(migration.OpRestore)
}
