package transfer

import "time"

const (
	// linkBuffers is what the way to the target swallows at once after a pause: an SSH channel's window and sockets' buffers.
	linkBuffers = 4 << 20
	// linkPause is a pause after which they count as empty.
	linkPause = 20 * time.Millisecond
	// linkSample is how much is written for one look at the rate.
	linkSample = 1 << 20
)

// linkRate learns from writes to the connection how fast the link is, in bytes a second. A link that has held up the writer
// is as fast as it was; one that has not may be faster, and is taken for that little by little.
type linkRate struct {
	rate float64 // taken for true; 0 is unknown
	full float64 // when the link last held up the writer; 0 if it never has

	run   int // bytes since the last pause
	last  time.Time
	began time.Time // of the sample
	bytes int       // in the sample
	busy  time.Duration
}

// wrote notes a write and says whether the rate has changed.
func (l *linkRate) wrote(n int, began, ended time.Time) bool {
	if began.Sub(l.last) > linkPause {
		l.run, l.bytes = 0, 0
	}
	l.last = ended
	if l.run += n; l.run <= linkBuffers {
		return false
	}
	if l.bytes == 0 {
		l.began, l.busy = began, 0
	}
	l.bytes, l.busy = l.bytes+n, l.busy+ended.Sub(began)
	if l.bytes < linkSample {
		return false
	}
	took := ended.Sub(l.began)
	l.sample(float64(l.bytes)/max(took, time.Microsecond).Seconds(), l.busy > took*3/4)
	l.bytes = 0
	return true
}

// sample takes in a rate that the link has carried; full says that it could not have carried more.
func (l *linkRate) sample(rate float64, full bool) {
	const up = 1.05
	switch {
	case full && l.full == 0:
		l.rate, l.full = rate, rate
	case full:
		l.full += (rate - l.full) / 2
		l.rate = l.full
	default:
		l.rate = max(rate, l.rate*up)
	}
}
