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
	"drover/worker/tree"
)

// target is the side that gets the tree and lets it run only when a verdict says so.
type target struct {
	*session
	final migration.FinalState
	shell tree.Shell

	channels chan *channel
	hold     engine.Hold
	pid      int           // of the root, from the hold on
	frozen   time.Duration // how long the source's tree had not run when
	frozeAt  time.Time     // the last byte of it came
	begun    time.Time     // when the first page of the final pass came

	settle  sync.Once
	settled chan struct{} // closed when a verdict has been acted on

	// guarded by the session's lock
	filling  tree.Filling
	ran      bool // the tree may have run
	gone     bool // and no process of it is left
	blackout time.Duration
	exit     int // the signal that ended the root
}

// held is what must be known of a held tree after a restart.
type held struct {
	Pid int `json:"pid"`
}

func newTarget(s *session) *target {
	t := &target{session: s, channels: make(chan *channel), settled: make(chan struct{})}
	t.final, _ = outcomes(migration.Target, s.req.Options)
	return t
}

// openTarget reserves what the tree will need and waits for its source.
func openTarget(ctx context.Context, s *session) (side, error) {
	t := newTarget(s)
	if err := s.host.reserve(s.req.Migration, s.req.Inventory.RSS); err != nil {
		return nil, err
	}
	var err error
	if t.shell, err = s.host.cfg.Trees.Reserve(ctx, s.req.Inventory, s.req.Epoch, s.req.Migration); err != nil {
		s.host.free(s.req.Migration)
		return nil, errs.New(errs.KindOf(err), "make a place for the tree: %w", err)
	}
	return t, nil
}

// channel is a page channel that the source has opened.
type channel struct {
	net.Conn
	ended chan error // how serving it ended
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
	in := &incoming{ctx: ctx, shell: t.shell, migration: t.req.Migration, epoch: t.req.Epoch, rss: t.req.Inventory.RSS, room: t.host.storeRoom(t.req.Migration)}
	stream := transfer.NewReceiver(in)
	defer func() { go stream.Close() }() // giving back the store takes time that the blackout need not wait for
	var err error
	if in.fill, err = t.beginFill(ctx, stream); err != nil {
		return err
	}
	defer in.fill.close()
	if err := t.receive(ctx, stream, in); err != nil {
		return err
	}
	if err := t.restore(ctx, in.fill); err != nil {
		return err
	}
	go t.watchHold(t.host.ctx)
	return nil
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
		t.change("", func(st *workerapi.SessionState) {
			st.Step, st.Digest = workerapi.StepStaged, hex.EncodeToString(end.got.Root[:])
		})
		return nil
	}
}

// restore rebuilds the tree, with its memory, and returns while it is held: no instruction of it has run.
func (t *target) restore(ctx context.Context, memory *memory) error {
	if err := t.will(stepHold, nil); err != nil {
		return err
	}
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
	begun := time.Now()
	apart := memory != nil && memory.pages > 0 // from the images
	if apart {
		if err := memory.seal(); err != nil {
			return err
		}
	}
	t.hold, err = t.shell.Engine().Restore(ctx, engine.RestoreRequest{
		Images: dir, Options: t.shell.Options(), FinalState: t.final, Cgroup: t.shell.Cgroup(), Inherit: inherit,
		Lazy: apart,
	})
	if err != nil {
		return errs.New(errs.KindOf(err), "restore %s on %s: %w", t.req.Spec.Name, t.host.cfg.Host, err)
	}
	t.log.Info("tree rebuilt", "took", time.Since(begun))
	t.pid = t.hold.Pid()
	filled := false
	if apart {
		if filled, err = t.awaitFill(ctx, memory); err != nil {
			return err
		}
	}
	if err := t.did(stepHold, held{t.pid}); err != nil {
		return err
	}
	t.reach(workerapi.StepHeld, "")
	if apart && !filled {
		go t.watchFilling(t.host.ctx)
	} else {
		t.host.free(t.req.Migration)
	}
	return nil
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
	if st := t.state(); st.Verdict != migration.Undecided || st.Step != workerapi.StepHeld {
		return // acting on the verdict finds out
	}
	t.fail(errs.New(errs.Failed, "the engine that held %s on %s has died: %w", t.req.Spec.Name, t.host.cfg.Host, engine.ErrLost).
		WithNext("nothing of it has run here; migrate again"))
	t.swept(ctx)
}

// swept removes a copy that will never run: nothing of it has.
func (t *target) swept(ctx context.Context) {
	if err := t.sweep(ctx); err != nil {
		t.log.Error("copy not removed", "error", err)
	}
}

func (t *target) sweep(ctx context.Context) error {
	t.settle.Do(func() { close(t.settled) })
	var err error
	if t.hold != nil {
		if err = t.hold.Abort(ctx); errors.Is(err, engine.ErrDecided) {
			err = nil // it runs or ran; discarding its shell kills it
		}
	}
	if discard := t.shell.Discard(ctx); discard != nil { // kills what the hold could not
		return errs.New(errs.KindOf(discard), "remove the copy: %w", errors.Join(discard, err))
	}
	t.host.free(t.req.Migration)
	t.mu.Lock()
	t.gone = true
	t.mu.Unlock()
	return nil
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
