package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"drover/internal/errs"
)

const (
	// greeting bounds how long the target may take to answer HELLO.
	greeting = 20 * time.Second
	// redialWait is the pause between attempts to reconnect, doubled up to redialMost.
	redialWait = 100 * time.Millisecond
	redialMost = 2 * time.Second
)

// outbox keeps frames until the target has acknowledged them and writes them to the connection there is.
type outbox struct {
	config SenderConfig
	key    []byte // of the pages' digests
	meter  *Meter
	codec  *chooser // is told how fast the link is

	mu         sync.Mutex
	frames     [][]byte // not acknowledged
	acked      uint64   // frames acknowledged before those
	taken      int      // of frames: given to the present connection
	written    int      // of frames: written to it in full
	bytes      int      // in frames
	ackedBytes uint64
	state      state
	reconnects int
	changed    chan struct{} // closed and replaced at each change
}

func newOutbox(m *Meter, codec *chooser, config SenderConfig, key []byte) *outbox {
	return &outbox{config: config, key: key, meter: m, codec: codec, changed: make(chan struct{})}
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

// add queues a frame once the window has room for it.
func (o *outbox) add(ctx context.Context, frame []byte) error {
	return o.wait(ctx, nil, func() bool {
		if len(o.frames) > 0 && o.bytes+len(frame) > Window {
			return false
		}
		o.frames = append(o.frames, frame)
		o.bytes += len(frame)
		o.wake()
		return true
	})
}

// take waits for a frame that the present connection has not been given.
func (o *outbox) take(ctx context.Context) (frame []byte, err error) {
	err = o.wait(ctx, nil, func() bool {
		if o.taken == len(o.frames) {
			return false
		}
		frame = o.frames[o.taken]
		o.taken++
		return true
	})
	return frame, err
}

// wrote notes that the last frame taken has been written, or why not.
func (o *outbox) wrote(err error) error {
	if err != nil {
		return lost(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.written = o.taken // nothing is taken before the last one is written
	return nil
}

// note takes the target's word.
func (o *outbox) note(s state) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.applied < o.acked || s.applied > o.acked+uint64(o.taken) || s.rounds < o.state.rounds {
		return protocol("the target has applied %d frames of %d to %d", s.applied, o.acked, o.acked+uint64(o.taken))
	}
	n := int(s.applied - o.acked)
	for i, f := range o.frames[:n] {
		o.bytes -= len(f)
		o.ackedBytes += uint64(len(f))
		if i < o.written {
			giveBack(f)
		}
		o.frames[i] = nil
	}
	o.frames, o.acked, o.state = o.frames[n:], s.applied, s
	o.taken, o.written = o.taken-n, max(0, o.written-n)
	o.wake()
	return nil
}

// empty lets go of the frames of a stream that has ended.
func (o *outbox) empty() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.frames, o.taken, o.written, o.bytes = nil, 0, 0, 0
}

func (o *outbox) progress(p *Progress) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p.AckedBytes, p.Reconnects = o.ackedBytes, o.reconnects
}

// greet says HELLO and notes the answer.
func (o *outbox) greet(ctx context.Context, rw io.ReadWriteCloser, resume bool) (slots uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	defer context.AfterFunc(ctx, func() { rw.Close() })()
	body, err := json.Marshal(hello{version, string(o.config.Migration), uint64(o.config.Epoch), resume, o.key})
	if err != nil {
		return 0, err
	}
	if _, err := rw.Write(plainFrame(fHello, body)); err != nil {
		return 0, lost(err)
	}
	o.mu.Lock()
	o.taken = len(o.frames) // whatever was written to a connection now lost may have been applied
	o.mu.Unlock()
	if err := o.hear(rw); err != nil {
		if ctx.Err() != nil {
			return 0, errs.New(errs.Unavailable, "open the page stream: the target does not answer: %w", ctx.Err())
		}
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken, o.written = 0, 0
	return o.state.slots, nil
}

// hear reads one frame of the target.
func (o *outbox) hear(r io.Reader) error {
	f, err := readFrame(r, true)
	switch {
	case errors.Is(err, io.EOF):
		return lost(err)
	case err != nil:
		return err
	case f.codec != None:
		return protocol("%s is packed", f.kind)
	case f.kind == fFail:
		return decodeFailure(f.body)
	}
	s, err := decodeState(f.body)
	if err != nil {
		return err
	}
	return o.note(s)
}

// run serves the connection, and those that replace it, until ctx is done or the stream cannot go on.
func (o *outbox) run(ctx context.Context, rw io.ReadWriteCloser) error {
	for {
		err := o.serve(ctx, rw)
		if ctx.Err() != nil || !errors.Is(err, ErrLost) || o.config.Redial == nil {
			return err
		}
		if rw, err = o.redial(ctx, err); err != nil {
			return err
		}
	}
}

// lastWords is how long the target may still be heard once nothing can be written to it: it may be saying why.
const lastWords = 2 * time.Second

// serve writes frames and hears the target until either fails.
func (o *outbox) serve(ctx context.Context, rw io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer rw.Close()
	defer context.AfterFunc(ctx, func() { rw.Close() })()
	var both sync.WaitGroup
	both.Go(func() {
		err := o.write(ctx, rw)
		late := time.AfterFunc(lastWords, func() { cancel(err) })
		<-ctx.Done()
		late.Stop()
	})
	both.Go(func() {
		for {
			if err := o.hear(rw); err != nil {
				cancel(err)
				return
			}
		}
	})
	both.Wait()
	return context.Cause(ctx)
}

// write writes frames as they come, until it fails.
func (o *outbox) write(ctx context.Context, rw io.Writer) error {
	w := Limit(ctx, Metered(rw, o.meter), o.config.Limiter)
	for {
		frame, err := o.take(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		_, err = w.Write(frame)
		o.codec.wrote(len(frame), began, time.Now())
		if err := o.wrote(err); err != nil {
			return err
		}
	}
}

// redial makes the next connection and lets the target say where to go on.
func (o *outbox) redial(ctx context.Context, why error) (io.ReadWriteCloser, error) {
	for wait := redialWait; ; wait = min(2*wait, redialMost) {
		rw, err := o.config.Redial(ctx)
		if err == nil {
			if _, err = o.greet(ctx, rw, true); err == nil {
				o.mu.Lock()
				o.reconnects++
				o.mu.Unlock()
				return rw, nil
			}
			rw.Close()
		}
		if !errors.Is(err, ErrLost) && errs.KindOf(err) != errs.Unavailable && ctx.Err() == nil {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), why)
		}
	}
}
