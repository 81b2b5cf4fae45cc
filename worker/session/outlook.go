package session

import (
	"time"

	workerapi "drover/worker/api"
)

// Ways that the memory of a tree goes in a cut-over.
const (
	wayWatched  = "watched"  // the tracker says what changed, CRIU leaves the memory out
	wayCompared = "compared" // CRIU leaves it out, every page is read and compared
	wayImaged   = "imaged"   // CRIU hands it over, and rebuilds the tree from images
)

// costs are what a cut-over takes on one way besides the link: fixed for freezing, the state that is not memory, the verdict and
// the release; page for each page of the tree, clean or dirty; dirty for each that is read in the freeze. Each mapping costs eachMapping.
type costs struct {
	way                string
	fixed, page, dirty time.Duration
	past               []workerapi.PastMove // that correct them
}

// perGiB turns a time for a GiB into one for a page.
func perGiB(d time.Duration) time.Duration { return d / (1 << 18) }

// What was measured with CRIU 4.2 (make bench, two cores that carry both hosts and the load), for each of the ways that memory
// goes. A loaded host takes longer: scale corrects them by what moves really took.
var (
	// The tracker looks at every page, and every page is named. What has changed is read meanwhile.
	watched = costs{way: wayWatched, fixed: 100 * time.Millisecond, page: perGiB(60 * time.Millisecond), dirty: perGiB(500 * time.Millisecond)}
	// All pages are read and compared by digest besides.
	compared = costs{way: wayCompared, fixed: watched.fixed, page: watched.page + perGiB(250*time.Millisecond), dirty: watched.dirty}
	// CRIU hands all pages over, which are compared, and rebuilds the tree from images.
	imaged = costs{way: wayImaged, fixed: watched.fixed, page: perGiB((400 + 230 + 450) * time.Millisecond), dirty: perGiB(1500 * time.Millisecond)}
)

const (
	// eachMapping is described, written, read and made again, by the kernel and by CRIU (docs/adr/0027-many-mappings.md).
	eachMapping = 25 * time.Microsecond
	// pageOnWire is what a page costs on the wire while nothing has been measured.
	pageOnWire = 4096 + 64
	// rateUnknown is assumed until something has been sent, in bytes a second: a gigabit.
	rateUnknown = 110e6
	// granting is how long the tree goes on writing after its last round: the leader is asked, and CRIU started.
	granting = 40 * time.Millisecond
	// wireEnough is how much a round must have sent for its rate to say something about the link, in bytes.
	wireEnough = 1 << 20
)

// lap is a finished round, how long before its look at the tree the look of the round before it began, what it found having been
// written in that time, and how many percent of its time were taken from the tree all that while.
type lap struct {
	workerapi.Round
	since    time.Duration
	throttle int
	limit    int64         // that it was sent under, bytes a second; 0 is none
	paced    time.Duration // of it, in which the processors were left to others: nobody waits in the freeze
}

// outlook is what the rounds so far say about cutting over now.
type outlook struct {
	blackout  time.Duration
	own, link time.Duration // its parts: what costs say, not corrected, and what the link takes
	dirtyRate float64       // pages a second
	rate      float64       // bytes a second on the wire
	page      float64       // bytes that a dirty page is on the wire
}

// look predicts the blackout of a cut-over after these rounds of a tree with so many pages. After a first round nothing is
// known of what the tree writes: all of it is taken to be dirty. What the last round has found is read again in the freeze
// (track.Exact), but costs little on the wire.
func look(laps []lap, pages uint64, c costs) outlook {
	o := outlook{rate: rateUnknown, page: pageOnWire}
	sent, wire := uint64(0), uint64(0)
	for _, r := range laps {
		sent, wire = sent+r.PagesSent, wire+r.WireBytes
		if r.WireBytes >= wireEnough && r.Took > r.paced {
			o.rate = float64(r.WireBytes) / (r.Took - r.paced).Seconds()
			if r.limit > 0 && o.rate > 0.8*float64(r.limit) { // there is no limit in the freeze, and this says nothing about the link
				o.rate = max(o.rate, rateUnknown)
			}
		}
	}
	if sent > 0 {
		o.page = float64(wire) / float64(sent)
	}
	dirty, read, mappings := float64(pages), float64(pages), uint64(0)
	if n := len(laps); n >= 1 {
		mappings = laps[n-1].Track.Mappings
	}
	if n := len(laps); n >= 2 {
		last := laps[n-1]
		o.dirtyRate = float64(last.Track.Emitted) / max(last.since, time.Millisecond).Seconds()
		unthrottled := o.dirtyRate * 100 / float64(100-last.throttle) // as it writes from the end of the throttle to the freeze
		dirty = min(dirty, o.dirtyRate*last.Took.Seconds()+unthrottled*granting.Seconds())
		read = min(read, dirty+float64(last.Track.Emitted))
		if last.PagesSent > 0 { // most as patches of what the round before has sent
			o.page = float64(last.WireBytes) / float64(last.PagesSent)
		}
	}
	o.own = c.fixed + time.Duration(pages)*c.page + time.Duration(read)*c.dirty + time.Duration(mappings)*eachMapping
	o.link = seconds(dirty * o.page / o.rate)
	o.blackout = time.Duration(float64(o.own)*scale(c.past, c.way, o.own)) + o.link
	return o
}
