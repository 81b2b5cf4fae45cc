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

func (c *counters) pages(offered, sent, zero, used uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start()
	c.now.PagesOffered += offered
	c.now.PagesSent += sent
	c.now.PagesZero += zero
	c.now.PagesKnown += offered - sent - zero
	c.now.SlotsUsed = used
}

func (c *counters) file(bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start()
	c.now.FileBytes += uint64(bytes)
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
		PagesKnown:   c.now.PagesKnown - c.last.PagesKnown,
		PagesZero:    c.now.PagesZero - c.last.PagesZero,
		FileBytes:    c.now.FileBytes - c.last.FileBytes,
		WireBytes:    wire - c.last.WireBytes,
		Took:         now.Sub(c.began),
	}
	c.now.Rounds = round
	c.last, c.began = c.now, now
	c.last.WireBytes = wire
	return r
}
