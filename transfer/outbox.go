package transfer

import (
	"context"
	"sync"
)

// nobody is the lane of a frame that waits to be written.
const nobody = -1

// unacked is a frame that the target has not acknowledged.
type unacked struct {
	sealed []byte
	lane   int  // that was given it
	idle   bool // no lane is writing it
}

// outbox keeps frames until the target has acknowledged them and has the lanes there are write them.
type outbox struct {
	config SenderConfig
	key    []byte // of the pages' digests
	meter  *Meter
	codec  *chooser // is told how fast the link is

	mu         sync.Mutex
	frames     []unacked
	acked      uint64 // frames acknowledged before those
	given      uint64 // the highest number that a lane was ever given
	first      int    // no frame before this one waits for a lane
	bytes      int    // in frames
	queued     int    // in those that wait for a lane
	ackedBytes uint64
	state      state
	lanes      int // there are or are being made
	reconnects int
	changed    chan struct{} // closed and replaced at each change
}

func newOutbox(m *Meter, codec *chooser, config SenderConfig, key []byte) *outbox {
	return &outbox{config: config, key: key, meter: m, codec: codec, lanes: 1, changed: make(chan struct{})}
}

// wake is called with o.mu held.
func (o *outbox) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// wait waits until ok, called with o.mu held, says so. What came before the end counts: a target that has said that all is
// staged hangs up at once.
func (o *outbox) wait(ctx context.Context, over <-chan struct{}, ok func() bool) error {
	var end error
	for {
		o.mu.Lock()
		changed := o.changed
		done := ok()
		o.mu.Unlock()
		if done {
			return nil
		}
		if end != nil {
			return end
		}
		select {
		case <-changed:
		case <-ctx.Done():
			end = ctx.Err()
		case <-over:
			end = ErrClosed
		}
	}
}

// await waits for the target's word.
func (o *outbox) await(ctx context.Context, over <-chan struct{}, enough func(state) bool) error {
	return o.wait(ctx, over, func() bool { return enough(o.state) })
}

// said is the target's last word.
func (o *outbox) said() state {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state
}

// add numbers a frame and queues it once the window has room for it.
func (o *outbox) add(ctx context.Context, frame []byte) error {
	return o.wait(ctx, nil, func() bool {
		if len(o.frames) > 0 && o.bytes+len(frame) > Window {
			return false
		}
		o.frames = append(o.frames, unacked{number(frame, o.acked+uint64(len(o.frames))+1), nobody, true})
		o.bytes += len(frame)
		o.queue(len(frame))
		o.wake()
		return true
	})
}

// queue is called with o.mu held.
func (o *outbox) queue(n int) {
	o.queued += n
	o.codec.waiting(o.queued)
}

// take waits for a frame for a lane, the first that has none.
func (o *outbox) take(ctx context.Context, lane int) (frame []byte, n uint64, err error) {
	err = o.wait(ctx, nil, func() bool {
		for o.first < len(o.frames) && o.frames[o.first].lane != nobody {
			o.first++
		}
		if o.first == len(o.frames) {
			return false
		}
		f := &o.frames[o.first]
		f.lane, f.idle = lane, false
		frame, n = f.sealed, o.acked+uint64(o.first)+1
		o.given = max(o.given, n)
		o.queue(-len(frame))
		return true
	})
	return frame, n, err
}

// wrote notes that frame n has been written.
func (o *outbox) wrote(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n > o.acked {
		o.frames[n-o.acked-1].idle = true
	}
}

// lost has what a lane was given, and nobody has acknowledged, written once more: some of it may have arrived.
func (o *outbox) lost(lane int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.frames {
		if f := &o.frames[i]; f.lane == lane {
			f.lane, f.idle = nobody, true // the lane's writer has ended
			o.queue(len(f.sealed))
		}
	}
	o.first = 0
	o.wake()
}

// note takes the target's word. A lane may be slower with it than another one was.
func (o *outbox) note(s state) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.applied < o.acked {
		return nil
	}
	if s.applied > o.given || s.rounds < o.state.rounds {
		return protocol("the target has applied %d frames of %d to %d and %d rounds of %d", s.applied, o.acked, o.given, s.rounds, o.state.rounds)
	}
	n, acked, waited := int(s.applied-o.acked), 0, 0
	for i := range o.frames[:n] {
		f := &o.frames[i]
		acked += len(f.sealed)
		if f.lane == nobody {
			waited += len(f.sealed)
		}
		if f.idle {
			giveBack(f.sealed)
		}
		*f = unacked{}
	}
	o.bytes -= acked
	o.ackedBytes += uint64(acked)
	o.frames, o.acked, o.first, o.state = o.frames[n:], s.applied, max(0, o.first-n), s
	o.queue(-waited)
	o.codec.acked(acked, len(o.frames) > 0)
	o.wake()
	return nil
}

// empty lets go of the frames of a stream that has ended.
func (o *outbox) empty() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.frames, o.first, o.bytes, o.queued = nil, 0, 0, 0
}

func (o *outbox) progress(p *Progress) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p.AckedBytes, p.Reconnects, p.Lanes = o.ackedBytes, o.reconnects, o.lanes
}
