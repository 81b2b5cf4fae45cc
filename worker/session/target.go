package session

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/transfer"
	workerapi "drover/worker/api"
	"drover/worker/session/rules"
	"drover/worker/tree"
)

// target is the side that gets the tree and lets it run only when a verdict says so.
type target struct {
	*session
	final migration.FinalState
	shell tree.Shell

	channels chan *channel
	stream   *transfer.Receiver // of the work, as is
	in       *incoming          // what comes in by it
	ahead    *restoring         // what comes in is restored by it
	apart    bool               // memory does not come with the images
	fills    bool               // and is being filled in
	hold     engine.Hold
	pid      int           // of the root, from the hold on
	frozen   time.Duration // how long the source's tree had not run when
	frozeAt  time.Time     // the last byte of it came
	begun    time.Time     // when the first page of the final pass came

	once    sync.Once
	settled chan struct{} // closed when a verdict has been acted on
	calm    func()        // ends the hurry; guarded by the session's lock, nil if there is none

	// guarded by the session's lock
	kept     chan *transfer.Kept // what is left of the store, once the work is over; nil if it is not to be kept
	filling  tree.Filling
	freed    time.Time // when the tree was let go
	blackout time.Duration
	refusal  error // why its engine could not remove the copy; whoever removes it
}

func newTarget(s *session) *target {
	return &target{session: s, final: s.facts().Final, channels: make(chan *channel), settled: make(chan struct{})}
}

// reserve reserves what the tree will need.
func (t *target) reserve(ctx context.Context) (err error) {
	if err := t.host.reserve(t.req.Migration, t.req.Spec.Name, t.req.Inventory.RSS); err != nil {
		return err
	}
	if t.shell, err = t.host.cfg.Trees.Reserve(ctx, t.req.Inventory, t.req.Epoch, t.req.Migration); err != nil {
		t.host.free(t.req.Migration)
		return errs.New(errs.KindOf(err), "make a place for the tree: %w", err)
	}
	return nil
}

// do does an op of rules' programs.
func (t *target) do(ctx context.Context, op rules.Op) error {
	switch op {
	case rules.Reserve:
		return t.reserve(ctx)
	case rules.Receive:
		return t.receive(ctx, t.stream, t.in)
	case rules.Restore:
		return t.restore(ctx)
	case rules.VouchFor:
		return t.vouchFor(ctx, t.in.fill)
	case rules.WriteHeld:
		return t.write(op, rules.Held{Pid: t.pid, Digest: t.digest})
	case rules.TellStaged:
		t.say(op, "")
	case rules.TellHeld:
		t.sayHeld()
	default:
		return t.settle(ctx, op)
	}
	return nil
}

// channel is a page channel that the source has opened.
type channel struct {
	net.Conn
	ended chan error // how serving it ended
}

// hurry says that the tree stands still, until there is a verdict.
func (t *target) hurry() {
	end := t.host.cfg.Nice.Hurry()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calm = end
}

// decided says that a verdict has been acted on.
func (t *target) decided() {
	t.once.Do(func() { close(t.settled) })
	t.mu.Lock()
	calm := t.calm
	t.mu.Unlock()
	if calm != nil {
		calm()
	}
}

// take hands a page channel of the source to the session and returns when it has been used up. There may be several, at once
// and one after the other: they say in the stream which of them replaces which.
func (t *target) take(ctx context.Context, conn net.Conn) error {
	if st := t.state(); st.Step != workerapi.StepOpen {
		return errs.New(errs.Conflict, "migration %s of %s takes pages while it is open; it is %s", st.Migration, st.Workload, st.Step)
	}
	ch := &channel{conn, make(chan error, 1)}
	for next := t.channels; ; {
		select {
		case next <- ch:
			next = nil
		case err := <-ch.ended:
			return err
		case <-t.worked:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// work receives the copy, rebuilds the tree from it and holds it.
func (t *target) work(ctx context.Context) error {
	in := &incoming{ctx: ctx, shell: t.shell, migration: t.req.Migration, epoch: t.req.Epoch, rss: t.req.Inventory.RSS, room: t.host.storeRoom(t.req.Migration), hurry: t.hurry}
	stream := transfer.NewReceiver(in)
	keep := !t.req.DryRun // which leaves nothing but what it has found
	defer func() { t.endStream(stream, keep) }()
	store, err := stream.Store()
	if err != nil {
		return err
	}
	pages, _ := store.Files()
	if err := t.host.fillsUp(t.req.Migration, pages, t.inPlace); err != nil {
		return err
	}
	if in.fill, err = t.beginFill(ctx, store); err != nil {
		return err
	}
	defer in.fill.close()
	if kept := t.host.take(t.req.Spec.Name); kept != nil {
		keep = true
		t.stock(ctx, store, kept)
	}
	t.stream, t.in = stream, in
	t.ahead = t.restoreAhead(ctx)
	defer func() {
		t.ahead.end()
		t.stream, t.in, t.ahead = nil, nil, nil
	}()
	if _, err := t.run(ctx, rules.Receiving); err != nil {
		return err
	}
	_, err = t.run(ctx, rules.Rebuilding)
	return err
}

// receive takes in pages and files until all is there and the digests are equal. A lost connection is waited for: the source
// makes another one and goes on where this host had got to.
func (t *target) receive(ctx context.Context, stream *transfer.Receiver, in *incoming) error {
	type outcome struct {
		got transfer.Result
		err error
	}
	served, over := make(chan outcome), make(chan struct{})
	defer close(over)
	for {
		var end outcome
		select {
		case ch := <-t.channels:
			go func() {
				got, err := stream.Serve(ctx, ch)
				ch.ended <- err
				select {
				case served <- outcome{got, err}:
				case <-over:
				}
			}()
			continue
		case end = <-served:
		case <-ctx.Done():
			return ctx.Err()
		}
		if errors.Is(end.err, transfer.ErrLost) && ctx.Err() == nil {
			t.change("lost a connection to the source: "+end.err.Error(), func(*workerapi.SessionState) {})
			continue
		}
		if end.err != nil {
			return errs.New(errs.KindOf(end.err), "receive %s from %s: %w", t.req.Spec.Name, t.req.Source.Host, end.err)
		}
		if n := int64(end.got.Spilled); n > 0 {
			t.log.Info("part of the store is on a disk", "bytes", n*transfer.PageSize, "of", int64(end.got.Slots)*transfer.PageSize)
		}
		t.frozen, t.frozeAt, t.begun = in.last.FrozenFor, time.Now(), in.begun
		t.mark(func(*rules.Session) { t.digest = hex.EncodeToString(end.got.Root[:]) })
		return nil
	}
}

// restoring is a restore that is asked for while the tree is still being copied: its engine is ready by the time that the images are.
type restoring struct {
	images chan struct{} // closed when they are complete
	ended  chan error    // has how it ended, once
	end    func()        // gives it up unless it has ended, and waits for that
}

// restoreAhead begins to restore what will have come in.
func (t *target) restoreAhead(ctx context.Context) *restoring {
	r, over := &restoring{images: make(chan struct{}), ended: make(chan error, 1)}, make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(over)
		r.ended <- t.rebuild(ctx, r.images)
	}()
	r.end = func() {
		cancel()
		<-over
	}
	return r
}

// restore rebuilds the tree and returns while it is held: no instruction of it has run.
func (t *target) restore(ctx context.Context) error {
	begun := time.Now()
	select {
	case err := <-t.ahead.ended: // it never got ready, and may now: one that dies later shows only when it is asked to restore
		t.log.Warn("no engine could be started ahead", "error", err)
		t.ahead.end()
		t.ahead = t.restoreAhead(ctx)
	default:
	}
	close(t.ahead.images)
	if err := <-t.ahead.ended; err != nil {
		return err
	}
	t.log.Info("tree rebuilt", "took", time.Since(begun))
	t.pid = t.hold.Pid()
	return nil
}

// rebuild rebuilds the tree once its images are complete.
func (t *target) rebuild(ctx context.Context, complete <-chan struct{}) error {
	dir, err := os.Open(t.shell.Images())
	if err != nil {
		return errs.New(errs.Failed, "open images: %w", err)
	}
	defer dir.Close()
	inherit, closeAll, err := openInherited(t.shell.Inherit())
	if err != nil {
		return err
	}
	defer closeAll()
	t.hold, err = t.shell.Engine().Restore(ctx, engine.RestoreRequest{
		Images: dir, Options: t.shell.Options(), FinalState: t.final, Cgroup: t.shell.Cgroup(), Inherit: inherit,
		AtReady: func(ctx context.Context) (lazy bool, err error) {
			select {
			case <-complete:
			case <-ctx.Done():
				return false, ctx.Err()
			}
			if t.apart = t.in.fill != nil && t.in.fill.pages > 0; t.apart {
				err = t.in.fill.seal()
			}
			return t.apart, err
		},
	})
	if err != nil {
		return errs.New(errs.KindOf(err), "restore %s on %s: %w", t.req.Spec.Name, t.host.cfg.Host, err)
	}
	return nil
}

// vouchFor returns when the held tree may be released as far as its memory goes.
func (t *target) vouchFor(ctx context.Context, memory *memory) error {
	if !t.apart {
		return nil
	}
	filled, err := t.awaitFill(ctx, memory)
	t.fills = err == nil && !filled
	return err
}

// sayHeld tells that the tree is held, and looks out for what may become of it.
func (t *target) sayHeld() {
	t.say(rules.TellHeld, t.takenUp)
	go t.watchHold(t.host.ctx)
	if t.fills {
		go t.watchFilling(t.host.ctx)
	} else {
		t.host.free(t.req.Migration)
	}
}

// watchHold looks out for the death of the engine that holds the tree, until a verdict has been acted on.
func (t *target) watchHold(ctx context.Context) {
	select {
	case <-t.hold.Lost():
	case <-t.settled:
		return
	case <-ctx.Done():
		return
	}
	ctx, free, err := t.act(ctx)
	if err != nil {
		return
	}
	defer free()
	t.tryAll(ctx, t.giveUp(errs.New(errs.Failed, "the engine that held %s on %s has died: %w", t.req.Spec.Name, t.host.cfg.Host, engine.ErrLost).
		WithNext("nothing of it has run here; migrate again"), (*rules.Session).HoldLost))
}

// openInherited opens namespace files by their keys.
func openInherited(paths map[string]string) (files map[string]*os.File, closeAll func(), err error) {
	files = map[string]*os.File{}
	closeAll = func() {
		for _, f := range files {
			f.Close()
		}
	}
	for key, path := range paths {
		f, err := os.Open(filepath.Clean(path))
		if err != nil {
			closeAll()
			return nil, nil, errs.New(errs.Failed, "open namespace %s: %w", key, err)
		}
		files[key] = f
	}
	return files, closeAll, nil
}
