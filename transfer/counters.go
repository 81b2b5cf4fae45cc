package transfer

import (
	"sync"
	"time"
)

// counters are a sender's figures, and those at the last round's end.
type counters struct {
	mu    sync.Mutex
	now   Progress
	last  Progress
	began time.Time
}

// pageCount is what became of one call's pages.
type pageCount struct{ offered, sent, zero, patched, saved, found uint64 }

func (c *counters) pages(n pageCount, used uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start()
	c.now.PagesOffered += n.offered
	c.now.PagesSent += n.sent
	c.now.PagesPatched += n.patched
	c.now.BytesSaved += n.saved
	c.now.PagesZero += n.zero
	c.now.PagesFound += n.found
	c.now.PagesKnown += n.offered - n.sent - n.zero
	c.now.SlotsUsed = used
}

func (c *counters) file(bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start()
	c.now.FileBytes += uint64(bytes)
}

// kept notes how many pages the target has from an earlier visit.
func (c *counters) kept(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.PagesKept = uint64(n)
}

func (c *counters) start() {
	if c.began.IsZero() {
		c.began = time.Now()
	}
}

func (c *counters) progress() Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// report says what there was since the last report and begins the next one.
func (c *counters) report(round int, wire uint64) RoundReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start()
	now := time.Now()
	r := RoundReport{
		Round:        round,
		PagesOffered: c.now.PagesOffered - c.last.PagesOffered,
		PagesSent:    c.now.PagesSent - c.last.PagesSent,
		PagesPatched: c.now.PagesPatched - c.last.PagesPatched,
		BytesSaved:   c.now.BytesSaved - c.last.BytesSaved,
		PagesKnown:   c.now.PagesKnown - c.last.PagesKnown,
		PagesZero:    c.now.PagesZero - c.last.PagesZero,
		PagesFound:   c.now.PagesFound - c.last.PagesFound,
		FileBytes:    c.now.FileBytes - c.last.FileBytes,
		WireBytes:    wire - c.last.WireBytes,
		Took:         now.Sub(c.began),
	}
	c.now.Rounds = round
	c.last, c.began = c.now, now
	c.last.WireBytes = wire
	return r
}
