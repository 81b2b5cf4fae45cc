package transfer

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// probeEvery is how many frames are packed with the chosen codec for each that tries another one: what the others would
	// cost changes with the data.
	probeEvery = 16
	// worthKnowing is the smallest frame whose packing says something, in bytes.
	worthKnowing = 16 << 10
	// worthChanging is by what part another codec must be faster to be taken.
	worthChanging = 0.1
)

// packCost is what a codec costs a byte: time on one packer, and bytes on the wire.
type packCost struct {
	time  float64 // seconds
	ratio float64
}

// chooser picks the codec with which a page takes the least time on its way: packing and the link work side by side, so the
// slower of them counts. It may be used by several goroutines.
type chooser struct {
	fixed bool
	final atomic.Bool // the final pass has begun: nothing is tried out in it
	codec atomic.Uint32

	mu     sync.Mutex
	costs  [Zstd + 1]packCost
	link   linkRate
	frames int
}

// newChooser is one that stays with codec, or begins with it.
func newChooser(codec Codec, fixed bool) *chooser {
	// To begin with, what a program's heap cost when it was measured.
	c := &chooser{fixed: fixed, costs: [...]packCost{None: {1.0 / 8e9, 1}, S2: {1.0 / 800e6, 0.30}, Zstd: {1.0 / 230e6, 0.25}}}
	c.codec.Store(uint32(codec))
	return c
}

func (c *chooser) now() Codec { return Codec(c.codec.Load()) }

// next is the codec for a frame: the chosen one, or another one to learn what it costs.
func (c *chooser) next() Codec {
	now := c.now()
	if c.fixed || c.final.Load() {
		return now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frames++; c.frames%probeEvery != 0 {
		return now
	}
	others := [...][2]Codec{None: {S2, Zstd}, S2: {Zstd, None}, Zstd: {S2, None}}[now]
	return others[c.frames/probeEvery%2]
}

// packed notes what packing a frame has cost.
func (c *chooser) packed(codec Codec, raw, wire int, took time.Duration) {
	if raw < worthKnowing {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	const weight = 0.25
	cost := &c.costs[codec]
	cost.time += weight * (took.Seconds()/float64(raw) - cost.time)
	cost.ratio += weight * (float64(wire)/float64(raw) - cost.ratio)
	c.choose()
}

// wrote notes that n bytes were written to the connection from began to ended.
func (c *chooser) wrote(n int, began, ended time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link.wrote(n, began, ended) {
		c.choose()
	}
}

// choose is called with c.mu held.
func (c *chooser) choose() {
	if c.fixed {
		return
	}
	rate := c.link.rate
	if c.final.Load() && c.link.full > 0 {
		rate = c.link.full
	}
	c.codec.Store(uint32(choose(c.now(), c.costs, rate)))
}

// choose is the codec for a link of so many bytes a second, 0 if that is not known.
func choose(now Codec, costs [Zstd + 1]packCost, link float64) Codec {
	if link == 0 {
		return now
	}
	best, least := now, (1-worthChanging)*costs[now].perByte(link)
	for c := range costs {
		if t := costs[c].perByte(link); t < least {
			best, least = Codec(c), t
		}
	}
	return best
}

// perByte is how long a byte takes. A part of the faster one's time counts too: a stream is not long, and at both of its ends
// one waits for the other.
func (p packCost) perByte(link float64) float64 {
	pack, wire := p.time/packers, p.ratio/link
	return max(pack, wire) + min(pack, wire)/4
}
