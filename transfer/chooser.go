package transfer

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// probeEvery is how many frames are packed for each of which a sample is packed in another way as well, and thrown away:
	// what the others would cost changes with the data.
	probeEvery = 16
	// probeEveryPlain is the same while frames are not packed: only samples say when that is worth it again.
	probeEveryPlain = 4
	// probeSample is the sample's size in bytes.
	probeSample = 64 << 10
	// worthKnowing is the smallest frame whose packing says something, in bytes.
	worthKnowing = 2 * probeSample
	// worthChanging is by what part another way must be faster to be taken.
	worthChanging = 0.03
	// plainly is by what factor none must be faster than every other way to be taken, for plainFrames frames one after the other:
	// what it costs to encrypt, carry and keep three times the bytes is not measured, and a frame is packed slowly whenever the
	// processors are busy with something else just then. What does not compress is not held to it.
	plainly     = 2
	plainFrames = 16
	compresses  = 15. / 16
	// supposed is the rate of a link of which nothing is known yet, in bytes a second.
	supposed = 250e6
)

// packCost is what packing costs a byte: time on one packer, and bytes on the wire.
type packCost struct {
	time  float64 // seconds
	ratio float64
}

type packCosts [packings]packCost

// heapCosts are those of a program's heap on an idle processor, measured.
var heapCosts = packCosts{
	packNone: {1.0 / 8e9, 1}, packS2: {1.0 / 1200e6, 0.31},
	packZstd: {1.0 / 480e6, 0.192}, packZstdMost: {1.0 / 260e6, 0.172},
}

// chooser picks how to pack so that pages take the least time on their way: packing and the link work side by side, and while the
// link has something to carry, packing may take longer. It may be used by several goroutines.
type chooser struct {
	among []packing   // the way is one of them
	final atomic.Bool // the final pass has begun: nothing is tried out in it
	way   atomic.Uint32

	mu      sync.Mutex
	costs   packCosts
	link    linkRate
	open    int // lanes
	writing int // lanes in which a write is under way
	queued  int // bytes packed and not yet given to a connection
	frames  int
	probes  int
	plain   int // frames since none was last not plainly the fastest
}

// newChooser is one that keeps to codec, whose effort it chooses, or begins with it.
func newChooser(codec Codec, fixed bool) *chooser {
	c := &chooser{costs: heapCosts}
	for way := range packings {
		if !fixed || way.codec() == codec {
			c.among = append(c.among, way)
		}
	}
	for _, way := range c.among {
		if way.codec() == codec {
			c.way.Store(uint32(way))
			break
		}
	}
	return c
}

func (c *chooser) now() packing { return packing(c.way.Load()) }

// probe is another way of which a sample should be packed, to learn what it costs. None is known and never tried.
func (c *chooser) probe() (other packing, ok bool) {
	if len(c.among) == 1 || c.final.Load() {
		return 0, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, every := c.now(), probeEvery
	if now == packNone {
		every = probeEveryPlain
	}
	if c.frames++; c.frames%every != 0 {
		return 0, false
	}
	c.probes++
	other = c.among[c.probes%len(c.among)]
	if now == packNone {
		other = c.among[1]
	}
	return other, other != packNone && other != now
}

// packed notes what packing a frame has cost.
func (c *chooser) packed(way packing, raw, wire int, took time.Duration) {
	if raw < worthKnowing {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.costs[way].learn(packCost{took.Seconds() / float64(raw), float64(wire) / float64(raw)})
	if c.plain++; !c.plainest() {
		c.plain = 0
	}
	c.choose()
}

// compared notes what one sample has cost packed as now and as other. A small one says little by itself, but something about
// the one beside the other. None does nothing with a sample: beside it, the other's cost is taken as it is.
func (c *chooser) compared(now, other packing, one, two packCost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one.time <= 0 || one.ratio <= 0 || two.time <= 0 || two.ratio <= 0 {
		return
	}
	if now != packNone {
		known := c.costs[now]
		two = packCost{known.time * two.time / one.time, known.ratio * two.ratio / one.ratio}
	}
	c.costs[other].learn(two)
	c.choose()
}

func (p *packCost) learn(seen packCost) {
	const weight = 0.25
	p.time += weight * (seen.time - p.time)
	p.ratio += weight * (seen.ratio - p.ratio)
}

// answered notes how long the target took to answer a greeting. What is acknowledged with it tells nothing of the rate.
func (c *chooser) answered(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if after = max(after, time.Microsecond); c.link.trip == 0 || after < c.link.trip {
		c.link.trip = after
	}
	c.link.from = time.Time{}
	c.choose()
}

// lanes notes that there are n connections more.
func (c *chooser) lanes(n int) { c.turn(func() { c.open += n }) }

// writes notes that n writes more are under way.
func (c *chooser) writes(n int) { c.turn(func() { c.writing += n }) }

// turn notes when the link begins to hold up the stream and when it ends to: it does while all lanes write.
func (c *chooser) turn(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.writing > 0 && c.writing >= c.open
	change()
	after := c.writing > 0 && c.writing >= c.open
	switch {
	case after && !before:
		c.link.begin(time.Now())
	case before && !after:
		c.link.end(time.Now())
	}
}

// crowded says whether so many lanes' windows are about all that the link carries.
func (c *chooser) crowded(lanes int) bool {
	const about = 0.7
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link.trip > 0 && c.link.full > about*c.link.window(lanes*channelWindow)
}

// waiting notes how many bytes are packed and not yet given to a connection.
func (c *chooser) waiting(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queued = n
	c.choose()
}

// acked notes that the target has taken n bytes, and whether more is under way to it.
func (c *chooser) acked(n int, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link.acked(n, more, time.Now()) {
		c.choose()
	}
}

// choose is called with c.mu held.
func (c *chooser) choose() {
	rate, packs := c.rate(), c.packs()
	way := packNone
	if len(packs) > 0 && !c.bare(packs, rate) {
		way = soonest(packs, &c.costs, rate, c.queued)
	}
	c.way.Store(uint32(way))
}

// bare says whether none is to be taken. It is called with c.mu held.
func (c *chooser) bare(packs []packing, rate float64) bool {
	return c.among[0] == packNone && choose(c.now(), c.among, &c.costs, rate) == packNone &&
		(c.plain >= plainFrames || c.costs[packs[0]].ratio >= compresses)
}

// plainest says whether the link, as far as it has been seen, would carry what is not packed much faster than packed. It is
// called with c.mu held.
func (c *chooser) plainest() bool {
	packs := c.packs()
	if len(packs) == 0 || c.among[0] != packNone || c.link.rate == 0 {
		return false
	}
	rate := c.rate()
	best := c.costs[choose(packs[0], packs, &c.costs, rate)]
	return c.costs[packNone].perByte(rate)*plainly < best.perByte(rate)
}

// packs are the ways that make a frame smaller.
func (c *chooser) packs() []packing {
	if c.among[0] != packNone {
		return c.among
	}
	return c.among[1:]
}

// rate is what the link is taken to carry, in bytes a second. It is called with c.mu held.
func (c *chooser) rate() float64 {
	switch {
	case c.final.Load() && c.link.full > 0:
		return c.link.full
	case c.link.rate > 0:
		return c.link.rate
	}
	if most := c.link.window(channelWindow); most > 0 {
		return min(supposed, most)
	}
	return supposed
}

// soonest is the way in which the next frame is over soonest, on a link that has queued bytes to carry before it. While it has
// there is time to try harder; a link that waits is given what is packed first.
func soonest(among []packing, costs *packCosts, link float64, queued int) packing {
	const frame = MaxRun * PageSize
	best, least := among[0], math.Inf(1)
	for _, way := range among {
		cost := costs[way]
		if over := max(float64(queued)/link, cost.time*frame) + cost.ratio*frame/link; over < least {
			best, least = way, over
		}
	}
	return best
}

// choose is the way for a link of so many bytes a second that takes the least time for many frames.
func choose(now packing, among []packing, costs *packCosts, link float64) packing {
	best, least := now, (1-worthChanging)*costs[now].perByte(link)
	for _, way := range among {
		if t := costs[way].perByte(link); t < least {
			best, least = way, t
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
