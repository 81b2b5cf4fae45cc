package session

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/tree"
)

// lookAlive is how often a released tree is looked at during probation: a root that dies is swept within that time.
const lookAlive = 100 * time.Millisecond

// released lets the tree run, or leaves it stopped as asked, and makes it this host's workload.
func (t *target) released(ctx context.Context) error {
	t.mu.Lock()
	failed, gone := t.failed, t.gone
	t.mu.Unlock()
	switch {
	case failed != nil:
		if !gone { // it could not be removed when it failed
			t.makeDead(ctx)
		}
		return errs.New(errs.KindOf(failed), "the tree cannot be released: %w", failed)
	case gone || t.hold == nil:
		return errs.New(errs.Failed, "the tree is not held here any more: %w", engine.ErrLost)
	}
	t.mu.Lock()
	t.ran = true
	t.mu.Unlock()
	if _, err := t.hold.Commit(ctx); err != nil {
		if errors.Is(err, engine.ErrLost) {
			t.mu.Lock()
			t.failed = err
			t.mu.Unlock()
			t.makeDead(ctx)
		}
		t.change(err.Error(), func(st *workerapi.SessionState) { failure(st, err) })
		return errs.New(errs.KindOf(err), "release the tree: %w", err)
	}
	t.settle.Do(func() { close(t.settled) })
	if !t.frozeAt.IsZero() {
		t.mu.Lock()
		t.blackout = t.frozen + time.Since(t.frozeAt)
		if !t.begun.IsZero() { // the source's last word may have been long on its way, behind the pages
			t.blackout = max(t.blackout, time.Since(t.begun))
		}
		t.mu.Unlock()
	}
	if err := t.shell.Accept(ctx, t.pid, brings(migration.Commit, t.req.Epoch), t.final == migration.Stopped); err != nil {
		return errs.New(errs.KindOf(err), "accept the tree: %w", err)
	}
	t.change("", func(st *workerapi.SessionState) {
		st.Step, st.Error, st.Next, st.Kind = workerapi.StepReleased, "", "", ""
	})
	go t.probation(t.host.ctx)
	return nil
}

// makeDead removes a tree that cannot be released, so that the source, which is still held, can be brought back. One whose engine
// was lost just when it was released may have run or may not: nobody can say.
func (t *target) makeDead(ctx context.Context) {
	t.swept(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone && t.ran {
		t.exit = int(unix.SIGKILL)
	}
}

// probation looks at a released tree until its migration has ended. If its root dies, whatever is left of it is killed at
// once: from then on it is proven dead, and a Reclaim is safe.
func (t *target) probation(ctx context.Context) {
	tick := time.NewTicker(lookAlive)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		t.mu.Lock()
		over := t.diary.state.Step != workerapi.StepReleased
		t.mu.Unlock()
		if over {
			return
		}
		if alive, _, signal := t.shell.Alive(); !alive {
			// One that has ended by itself has done its work; what it left running is its own.
			if signal == 0 {
				t.passed(0)
				return
			}
			if err := t.shell.Engine().Kill(ctx, engine.Tree{Pid: t.pid, Cgroup: t.shell.Cgroup()}); err != nil {
				t.log.Error("rest of the tree not killed", "error", err)
				continue
			}
			t.passed(signal)
			return
		}
	}
}

// passed notes that the released tree's root has ended.
func (t *target) passed(signal int) {
	t.mu.Lock()
	t.gone, t.exit, t.filling = true, signal, tree.Filling{Over: true} // nobody waits for its memory any more
	t.mu.Unlock()
	t.log.Warn("released tree ended in probation", "signal", signal)
	t.change("the tree's root has ended", func(*workerapi.SessionState) {})
}

// undone removes the copy, running or not: the record says that the tree is the source's.
func (t *target) undone(ctx context.Context, _ migration.Verdict, _ migration.Epoch) error {
	return t.sweep(ctx)
}

// confirmed drops the images: the tree has outlived them.
func (t *target) confirmed(context.Context) error {
	if err := os.RemoveAll(t.shell.Images()); err != nil {
		return errs.New(errs.Failed, "remove images: %w", err).WithNext("remove %s by hand: it holds the tree's memory", t.shell.Images())
	}
	return nil
}

func (t *target) look(st *workerapi.SessionState) {
	st.NeverRan = !t.ran && t.gone
	st.FrozenFor = t.blackout
	st.ExitSignal = t.exit
	st.Alive = st.Step == workerapi.StepReleased && !t.gone
	st.Filling = nil
	if f := t.filling; f.All > 0 && !f.Over {
		st.Filling = &workerapi.Filling{Done: f.Done, All: f.All}
	}
}
