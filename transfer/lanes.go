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
	// maxLanes is how many connections a stream has at most: with as many the windows of SSH channels add up to Window.
	maxLanes = Window / channelWindow
	// channelWindow is how many bytes an SSH channel has under way at most; it waits for word from the other end then.
	channelWindow = 2 << 20
)

// greet says HELLO and notes the answer.
func (o *outbox) greet(ctx context.Context, rw io.ReadWriteCloser, resume bool, lane int) (slots uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	defer context.AfterFunc(ctx, func() { rw.Close() })()
	body, err := json.Marshal(hello{version, string(o.config.Migration), uint64(o.config.Epoch), resume, lane, o.key})
	if err != nil {
		return 0, err
	}
	if _, err := rw.Write(plainFrame(fHello, body)); err != nil {
		return 0, lost(err)
	}
	asked := time.Now()
	if err := o.hear(rw); err != nil {
		if ctx.Err() != nil {
			return 0, errs.New(errs.Unavailable, "open the page stream: the target does not answer: %w", ctx.Err())
		}
		return 0, err
	}
	o.codec.answered(time.Since(asked))
	return o.said().slots, nil
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
	case f.kind != fState:
		return protocol("%s in mid-stream", f.kind)
	}
	s, err := decodeState(f.body)
	if err != nil {
		return err
	}
	return o.note(s)
}

// run has the lanes written to, of which rw is the first, until ctx is done or the stream cannot go on.
func (o *outbox) run(ctx context.Context, rw io.ReadWriteCloser) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var all sync.WaitGroup
	all.Go(func() { end(o.lane(ctx, 0, rw)) })
	if o.config.Redial != nil {
		all.Go(func() { o.widen(ctx, &all, end) })
	}
	all.Wait()
	return context.Cause(ctx)
}

// widen adds lanes as long as the link carries about as much as the windows of those there are let through: then it is they
// that hold it up. On a near link one is enough.
func (o *outbox) widen(ctx context.Context, all *sync.WaitGroup, end context.CancelCauseFunc) {
	for {
		var from, to int
		if o.wait(ctx, nil, func() bool {
			from, to = o.lanes, min(2*o.lanes, maxLanes)
			if from == to || !o.codec.crowded(from) {
				return false
			}
			o.lanes = to
			return true
		}) != nil {
			return
		}
		for n := from; n < to; n++ {
			all.Go(func() {
				// The stream has its first lane: a host that takes no more of them is no failure.
				if rw, err := o.dial(ctx, n); err == nil {
					if err := o.lane(ctx, n, rw); !errors.Is(err, errNoLane) {
						end(err)
					}
				}
			})
		}
	}
}

// errNoLane: one of several lanes cannot be made again.
var errNoLane = errors.New("the lane is given up")

// lane serves a lane's connection, and those that replace it.
func (o *outbox) lane(ctx context.Context, n int, rw io.ReadWriteCloser) error {
	for {
		err := o.serve(ctx, n, rw)
		o.lost(n)
		if ctx.Err() != nil || !errors.Is(err, ErrLost) || o.config.Redial == nil {
			return err
		}
		if rw, err = o.redial(ctx, n, err); err != nil {
			if n > 0 && ctx.Err() == nil {
				return errNoLane // another one will say why, if it is for good
			}
			return err
		}
	}
}

// lastWords is how long the target may still be heard once nothing can be written to it: it may be saying why.
const lastWords = 2 * time.Second

// serve writes frames and hears the target until either fails.
func (o *outbox) serve(ctx context.Context, lane int, rw io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer rw.Close()
	defer context.AfterFunc(ctx, func() { rw.Close() })()
	o.codec.lanes(1)
	defer o.codec.lanes(-1)
	var both sync.WaitGroup
	both.Go(func() {
		err := o.write(ctx, lane, rw)
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
func (o *outbox) write(ctx context.Context, lane int, rw io.Writer) error {
	w := Limit(ctx, Metered(rw, o.meter), o.config.Limiter)
	for {
		frame, n, err := o.take(ctx, lane)
		if err != nil {
			return err
		}
		o.codec.writes(1)
		_, err = w.Write(frame)
		o.codec.writes(-1)
		if err != nil {
			return lost(err)
		}
		o.wrote(n)
	}
}

// dial makes a lane's connection and lets the target say where the stream is.
func (o *outbox) dial(ctx context.Context, lane int) (io.ReadWriteCloser, error) {
	rw, err := o.config.Redial(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := o.greet(ctx, rw, true, lane); err != nil {
		rw.Close()
		return nil, err
	}
	return rw, nil
}

// redial makes the next connection of a lane that was lost.
func (o *outbox) redial(ctx context.Context, lane int, why error) (io.ReadWriteCloser, error) {
	for wait := redialWait; ; wait = min(2*wait, redialMost) {
		rw, err := o.dial(ctx, lane)
		if err == nil {
			o.mu.Lock()
			o.reconnects++
			o.mu.Unlock()
			return rw, nil
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
