package transfer

import (
	"sync/atomic"
	"time"
)

// chooseEvery is how many frames are sent between two choices of a codec.
const chooseEvery = 16

// chooser picks the codec by what the stream waits for: a link that is slower than the packing is worth more packing, packing
// that is slower than the link is not. It is told by the goroutine that hands frames to the connection and asked by all.
type chooser struct {
	fixed   bool
	codec   atomic.Uint32
	frames  int
	packing time.Duration // waited for a frame to be packed, since the last choice
	link    time.Duration // waited for room in the window
}

// newChooser is one that stays with codec, or begins with it.
func newChooser(codec Codec, fixed bool) *chooser {
	c := &chooser{fixed: fixed}
	c.codec.Store(uint32(codec))
	return c
}

func (c *chooser) now() Codec { return Codec(c.codec.Load()) }

// waited notes what one frame has waited for.
func (c *chooser) waited(packing, link time.Duration) {
	c.packing += packing
	c.link += link
	if c.frames++; c.frames < chooseEvery {
		return
	}
	if !c.fixed {
		c.codec.Store(uint32(choose(c.now(), c.packing, c.link)))
	}
	c.frames, c.packing, c.link = 0, 0, 0
}

// choose goes one step to less packing if packing holds the stream up twice as long as the link does, to more in the other
// case, and stays if neither holds it up.
func choose(now Codec, packing, link time.Duration) Codec {
	const worth = 10 * time.Millisecond
	switch {
	case packing > worth && packing > 2*link && now > None:
		return now - 1
	case link > worth && link > 2*packing && now < Zstd:
		return now + 1
	}
	return now
}
