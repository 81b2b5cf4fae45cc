package transfer

import (
	"context"
	"errors"
	"io"
	"sync"

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

// Receiver is the target's end of a page stream. Serve is called for each of its connections, of which there may be several
// at once and many one after the other, until one returns without an error or with one that is not ErrLost.
type Receiver struct {
	merge *merge
	ctx   context.Context // of what puts frames in order, unpacks and applies them
	end   context.CancelFunc
	all   sync.WaitGroup // of that
	over  chan struct{}  // closed when the stream is staged or has failed for good

	applying sync.Mutex // held while the applier is used
	applier  *applier

	mu      sync.Mutex
	started bool
	lanes   map[int]io.Closer // the connection that each lane has now
	state   state             // as the source is told
	applied uint64            // frames; the state may be older
	untold  int               // bytes applied since the state
	result  Result            // valid once over is closed, as is err
	err     error
	changed chan struct{} // closed and replaced at each change
}

// NewReceiver makes a receiver that fills target.
func NewReceiver(target Target) *Receiver {
	r := &Receiver{
		merge: newMerge(), applier: newApplier(target), over: make(chan struct{}),
		lanes: map[int]io.Closer{}, changed: make(chan struct{}),
	}
	r.ctx, r.end = context.WithCancel(context.Background())
	return r
}

// received is a frame on its way through unpacking.
type received struct {
	*frame
	payload []byte
	sums    []Digest // of PUT's pages; those of patched ones are yet to be computed
	err     error
}

// Serve serves one connection, which it closes.
func (r *Receiver) Serve(ctx context.Context, rw io.ReadWriteCloser) (Result, error) {
	defer rw.Close()
	if _, over, err := r.outcome(); over && err != nil {
		return Result{}, err
	}
	err := r.serve(ctx, rw)
	if err != nil && ctx.Err() != nil {
		err = errs.New(errs.KindOf(ctx.Err()), "receive pages: %w", ctx.Err())
	}
	if err != nil && !errors.Is(err, ErrLost) {
		r.finish(err)
	}
	result, over, failed := r.outcome()
	switch {
	case over && failed != nil:
		return Result{}, failed
	case err != nil: // also if all is staged: the source has not been told over this connection
		return Result{}, err
	}
	return result, nil
}

// Store is where the pages that come will stand, before any has come. It stays the Receiver's. Call it before Serve.
func (r *Receiver) Store() (*Store, error) {
	r.applying.Lock()
	defer r.applying.Unlock()
	return r.applier.reserve()
}

// Close frees the store, with all pages that PageWriters were handed, and closes what the target has open. Calls of Serve
// under way return.
func (r *Receiver) Close() error {
	r.finish(ErrClosed)
	r.all.Wait()
	r.applying.Lock()
	defer r.applying.Unlock()
	return r.applier.close()
}

// finish says that the stream has failed.
func (r *Receiver) finish(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finishNow(Result{}, err)
}

// finishNow says how the stream has ended. Only the first call counts. Called with r.mu held.
func (r *Receiver) finishNow(result Result, err error) {
	select {
	case <-r.over:
	default:
		r.result, r.err = result, err
		close(r.over)
	}
	r.end()
}

func (r *Receiver) outcome() (result Result, over bool, err error) {
	select {
	case <-r.over:
		return r.result, true, r.err
	default:
		return Result{}, false, nil
	}
}

// serve reads a connection's frames and tells it how far the stream is.
func (r *Receiver) serve(ctx context.Context, rw io.ReadWriteCloser) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(ctx, func() { rw.Close() })()
	lane, told, err := r.welcome(rw)
	if err != nil {
		return tell(rw, err)
	}
	defer r.leave(lane, rw)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer stop(nil)
	reading.Go(func() {
		err := r.read(ctx, rw)
		if errors.Is(err, ErrLost) {
			r.settle(ctx) // what has come before the loss may say more
		}
		stop(err)
	})
	return r.inform(ctx, rw, told)
}

// read takes in frames until the connection ends or brings what it must not.
func (r *Receiver) read(ctx context.Context, rw io.Reader) error {
	for {
		f, err := readFrame(rw, false)
		if errors.Is(err, io.EOF) {
			err = lost(err)
		}
		if err == nil && (f.kind == fHello || f.number == 0) {
			err = protocol("%s with number %d in mid-stream", f.kind, f.number)
		}
		if err == nil {
			err = r.merge.add(ctx, f)
		}
		if err != nil {
			return err
		}
	}
}

// settle waits until all has been applied that can be.
func (r *Receiver) settle(ctx context.Context) {
	for {
		r.mu.Lock()
		applied, changed := r.applied, r.changed
		r.mu.Unlock()
		if r.merge.emptyAt(applied + 1) {
			return
		}
		select {
		case <-changed:
		case <-r.over:
			return
		case <-ctx.Done():
			return
		}
	}
}

// inform tells the source how far the stream is, until ctx or the stream ends, and how it has ended.
func (r *Receiver) inform(ctx context.Context, rw io.Writer, told state) error {
	for {
		r.mu.Lock()
		now, changed := r.state, r.changed
		r.mu.Unlock()
		if now != told {
			if err := writeState(rw, now); err != nil {
				return err
			}
			told = now
			continue
		}
		select {
		case <-changed:
			continue
		case <-r.over:
		case <-ctx.Done():
		}
		_, over, err := r.outcome()
		switch {
		case !over:
			return tell(rw, context.Cause(ctx))
		case err != nil:
			return tell(rw, err)
		case told.staged:
			return nil
		}
		r.mu.Lock()
		now = r.state // staged was said before over
		r.mu.Unlock()
		return writeState(rw, now)
	}
}

// start lets frames be put in order, unpacked and applied, once. Called with r.mu held.
func (r *Receiver) start() {
	if r.started {
		return
	}
	r.started = true
	frames := newStage[*received](unpackers)
	r.all.Go(func() {
		for {
			f, err := r.merge.take(r.ctx)
			if err != nil || frames.put(r.ctx, &received{frame: f}) != nil {
				return
			}
		}
	})
	for range unpackers {
		r.all.Go(func() {
			u := newUnpacker()
			defer u.close()
			frames.work(r.ctx, func(f *received) { f.prepare(u, r.applier.digest) })
		})
	}
	r.all.Go(func() {
		if err := frames.each(r.ctx, r.apply); err != nil {
			r.finish(err) // unless it has ended otherwise, and that is why
		}
	})
}

// apply applies a frame, and notes what the source should be told.
func (r *Receiver) apply(f *received) error {
	if f.err != nil {
		return f.err
	}
	r.applying.Lock()
	answer, err := r.applier.frame(f)
	now, result := r.applier.state, r.applier.result
	r.applying.Unlock()
	if err != nil {
		return err
	}
	size := f.wireSize()
	f.release()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applied = now.applied
	if r.untold += size; answer || r.untold >= ackEvery {
		r.untold, r.state = 0, now
	}
	close(r.changed)
	r.changed = make(chan struct{})
	if now.staged { // at once with the state: a source that has been told hangs up, which must not look like a loss
		r.finishNow(result, nil)
	}
	return nil
}

// prepare is what can be done with a frame out of order: unpack it and compute the digests of whole pages.
func (f *received) prepare(u *unpacker, d *digester) {
	if f.err != nil {
		return
	}
	if f.payload, f.err = u.unpack(f.frame); f.err == nil && f.kind == fPut {
		f.sums, f.err = sumPages(d, f.payload)
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

// sumPages checks the form of PUT and computes the digests of whole pages; those of patched ones depend on what was applied
// before.
func sumPages(d *digester, payload []byte) (sums []Digest, err error) {
	r, err := readPut(payload)
	if err != nil {
		return nil, err
	}
	for {
		p, ok, err := r.page()
		if !ok {
			return sums, err
		}
		var sum Digest
		if p.whole() {
			sum = d.of(p.pieces)
		}
		sums = append(sums, sum)
	}
}
