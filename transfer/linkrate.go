package transfer

import "time"

// linkSample is how much is acknowledged for one look at the rate, in bytes.
const linkSample = 2 << 20

// linkTrips is how many round trips one look lasts at least.
const linkTrips = 3

// linkRate learns how fast the link is, in bytes a second, from what the target acknowledges: what has only been written may
// lie in buffers on the way. A link that has held up the writer meanwhile is as fast as that; one that has not may be faster,
// and is taken for that little by little.
type linkRate struct {
	rate float64       // taken for true; 0 is unknown
	full float64       // when the link last held up the writer; 0 if it never has
	trip time.Duration // what an answer takes at least; 0 is unknown

	from    time.Time // of the sample; zero if nothing was under way
	bytes   int       // in the sample
	busy    time.Duration
	writing time.Time // since when a write has been under way that is not in busy; zero if none is
}

// window is what one lane carries at most, if so many bytes may be under way on it; 0 is unknown.
func (l *linkRate) window(bytes int) float64 {
	if l.trip == 0 {
		return 0
	}
	return float64(bytes) / l.trip.Seconds()
}

func (l *linkRate) begin(at time.Time) { l.writing = at }

func (l *linkRate) end(at time.Time) {
	l.look(at)
	l.writing = time.Time{}
}

// look counts the write under way up to now.
func (l *linkRate) look(at time.Time) {
	if !l.writing.IsZero() {
		l.busy += at.Sub(l.writing)
		l.writing = at
	}
}

// acked notes that n bytes more have arrived, and whether more is under way, and says whether the rate has changed.
func (l *linkRate) acked(n int, more bool, at time.Time) (changed bool) {
	l.look(at)
	if !l.from.IsZero() {
		l.bytes += n
	}
	took := at.Sub(l.from)
	switch {
	case !more:
		l.from = time.Time{}
	case l.from.IsZero():
		l.from, l.bytes, l.busy = at, 0, 0
	case l.bytes >= linkSample && took > 0 && took >= linkTrips*l.trip: // acknowledgements of a far target come in bursts
		l.sample(float64(l.bytes)/took.Seconds(), l.busy > took*3/4)
		l.from, l.bytes, l.busy = at, 0, 0
		return true
	}
	return false
}

// sample takes in a rate that the link has carried; full says that it could not have carried more.
func (l *linkRate) sample(rate float64, full bool) {
	const up, most = 1.05, 1.25
	const beyond = 3 // times what was carried: a stream that only the processors hold up would take any link for endless
	switch {
	case full && l.full == 0:
		l.rate, l.full = rate, rate
	case full:
		l.full += (rate - l.full) / 2
		l.rate = l.full
	case l.rate == 0:
		l.rate = max(rate, supposed)
	default:
		l.rate = min(max(rate, l.rate*up), l.rate*most, max(beyond*rate, l.full))
	}
}
