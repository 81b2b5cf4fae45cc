package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"drover/internal/errs"
)

// unpackers is how many goroutines unpack frames and compute pages' digests.
const unpackers = 2

// ackEvery is how much is applied between two STATE frames, in bytes on the wire.
const ackEvery = 1 << 20

// Receive is the target's end of a page stream over one connection, which it closes. It returns when the stream is staged:
// all has arrived, every digest has been checked, the root digest is the source's and the source has been told; or with
// the first error, also when ctx ends. Pages that target's writers have kept are gone then; a Receiver leaves them until Close.
func Receive(ctx context.Context, rw io.ReadWriteCloser, target Target) (Result, error) {
	r := NewReceiver(target)
	defer r.Close()
	return r.Serve(ctx, rw)
}

// Receiver is the target's end of a page stream that outlives its connections: Serve is called for one after the other,
// until one returns without an error or with one that is not ErrLost.
type Receiver struct {
	mu      sync.Mutex // held by the one Serve under way
	applier *applier
	done    error // the stream has failed for good
}

// NewReceiver makes a receiver that fills target.
func NewReceiver(target Target) *Receiver {
	return &Receiver{applier: newApplier(target)}
}

// received is a frame on its way through unpacking.
type received struct {
	*frame
	payload []byte
	err     error
}

// Serve serves one connection, which it closes.
func (r *Receiver) Serve(ctx context.Context, rw io.ReadWriteCloser) (Result, error) {
	defer rw.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done != nil {
		return Result{}, r.done
	}
	err := r.serve(ctx, rw)
	if err == nil {
		return r.applier.result, nil
	}
	if ctx.Err() != nil {
		err = errs.New(errs.KindOf(ctx.Err()), "receive pages: %w", ctx.Err())
	}
	if !errors.Is(err, ErrLost) {
		r.done = err
	}
	return Result{}, err
}

// Close frees the store, with all pages that PageWriters were handed, and closes what the target has open. It waits for a Serve under way, whose ctx should have ended.
func (r *Receiver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done = ErrClosed
	}
	return r.applier.close()
}

func (r *Receiver) serve(ctx context.Context, rw io.ReadWriteCloser) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(ctx, func() { rw.Close() })()
	if err := r.welcome(rw); err != nil {
		return tell(rw, err)
	}
	if r.applier.state.staged { // and the source had not heard it when its connection was lost
		return nil
	}
	var all sync.WaitGroup
	defer all.Wait()
	defer stop(nil)
	frames := newStage[*received](unpackers)
	all.Go(func() {
		for {
			f, err := readFrame(rw, false)
			if errors.Is(err, io.EOF) {
				err = lost(err)
			}
			if frames.put(ctx, &received{frame: f, err: err}) != nil || err != nil {
				return
			}
		}
	})
	for range unpackers {
		all.Go(func() {
			u := newUnpacker()
			defer u.close()
			frames.work(ctx, func(f *received) { f.prepare(u, r.applier.digest) })
		})
	}
	return r.apply(ctx, rw, frames)
}

// errStaged ends the loop over frames.
var errStaged = errors.New("staged")

// apply applies frames in their order and tells the source how far it is.
func (r *Receiver) apply(ctx context.Context, rw io.Writer, frames *stage[*received]) error {
	told := 0
	err := frames.each(ctx, func(f *received) error {
		if f.err != nil {
			return f.err
		}
		answer, err := r.applier.frame(f)
		if err != nil {
			return err
		}
		f.release()
		if told += f.wireSize(); answer || told >= ackEvery {
			told = 0
			if err := writeState(rw, r.applier.state); err != nil {
				return err
			}
		}
		if r.applier.state.staged {
			return errStaged
		}
		return nil
	})
	if errors.Is(err, errStaged) {
		return nil
	}
	return tell(rw, err)
}

// prepare is what can be done with a frame out of order: unpack it and check the digests of whole pages.
func (f *received) prepare(u *unpacker, d *digester) {
	if f.err != nil {
		return
	}
	if f.payload, f.err = u.unpack(f.frame); f.err == nil && f.kind == fPut {
		f.err = checkPages(d, f.payload)
	}
}

// release gives the frame's buffers back once it has been applied.
func (f *received) release() {
	giveBack(f.body)
	if f.codec != None {
		giveBack(f.payload)
	}
	f.payload = nil
}

// checkPages checks the form of PUT and the digests of whole pages; those of patched ones depend on what was applied before.
func checkPages(d *digester, payload []byte) error {
	if len(payload) == 0 {
		return protocol("PUT of nothing")
	}
	for len(payload) > 0 {
		var p put
		var err error
		if p, payload, err = nextPut(payload); err != nil {
			return err
		}
		if p.whole() && d.of(p.pieces) != p.sum {
			return errs.New(errs.Failed, "the page for slot %d has another digest: %w", p.slot, ErrCorrupt)
		}
	}
	return nil
}

// welcome reads HELLO and answers it.
func (r *Receiver) welcome(rw io.ReadWriteCloser) error {
	late := time.AfterFunc(greeting, func() { rw.Close() })
	defer late.Stop()
	f, err := readFrame(rw, false)
	if err != nil {
		return lost(err)
	}
	var h hello
	if f.kind != fHello || f.codec != None {
		return protocol("the stream begins with %s", f.kind)
	}
	if err := json.Unmarshal(f.body, &h); err != nil {
		return protocol("HELLO is garbled (%v)", err)
	}
	if err := r.applier.hello(h); err != nil {
		return err
	}
	return writeState(rw, r.applier.state)
}

func writeState(w io.Writer, s state) error {
	if _, err := w.Write(plainFrame(fState, s.encode())); err != nil {
		return lost(err)
	}
	return nil
}

// tell tells the source why the target gives up, if that is for good, and returns err.
func tell(w io.Writer, err error) error {
	if errors.Is(err, ErrLost) {
		return err
	}
	if _, werr := w.Write(plainFrame(fFail, encodeFailure(err))); werr != nil {
		return fmt.Errorf("%w (and the source could not be told)", err)
	}
	return err
}
