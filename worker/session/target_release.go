package session

import (
	"context"
	"errors"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session/rules"
	"drover/worker/tree"
)

// lookAlive is how often a released tree is looked at during probation: a root that dies is swept within that time.
const lookAlive = 100 * time.Millisecond

// settle does an op that a verdict or a restart asks for.
func (t *target) settle(ctx context.Context, op rules.Op) error {
	switch op {
	case rules.LetRun:
		return t.letRun(ctx)
	case rules.Accept:
		if err := t.shell.Accept(ctx, t.pid, rules.Brings(migration.Commit, t.req.Epoch), t.final == migration.Stopped); err != nil {
			return errs.New(errs.KindOf(err), "accept the tree: %w", err)
		}
	case rules.SeeAlive:
		_, err := t.seeAlive(ctx)
		return err
	case rules.TellReleased:
		t.say(op, t.takenUp)
		go t.probation(t.host.ctx)
	case rules.Refuse:
		t.refuse(ctx)
	case rules.Discard:
		return t.discard(ctx)
	case rules.Kill:
		return t.shell.Engine().Kill(ctx, engine.Tree{Pid: t.pid, Cgroup: t.shell.Cgroup()})
	case rules.DropImages: // the tree has outlived them
		return removeImages(t.shell.Images())
	case rules.Deny:
		return t.deny()
	case rules.Mourn: // the session takes note of it
	default:
		return errs.New(errs.Failed, "a target cannot %s", op)
	}
	return nil
}

// letRun lets the tree run, or leaves it stopped as asked.
func (t *target) letRun(ctx context.Context) error {
	if _, err := t.hold.Commit(ctx); err != nil {
		return errs.New(errs.KindOf(err), "release the tree: %w", err)
	}
	t.decided()
	t.keepPages(false)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.freed = time.Now()
	if t.frozeAt.IsZero() {
		return nil
	}
	t.blackout = t.frozen + time.Since(t.frozeAt)
	if !t.begun.IsZero() { // the source's last word may have been long on its way, behind the pages
		t.blackout = max(t.blackout, time.Since(t.begun))
	}
	return nil
}

// deny says why the tree cannot be released.
func (t *target) deny() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.diary.state.Broken {
		return errs.New(errs.KindOf(t.failed), "the tree cannot be released: %w", t.failed)
	}
	return errs.New(errs.Failed, "the tree is not held here any more: %w", engine.ErrLost)
}

// refuse has the engine kill the copy, if it can.
func (t *target) refuse(ctx context.Context) {
	t.decided()
	if t.refusal = nil; t.hold == nil {
		return
	}
	if err := t.hold.Abort(ctx); !errors.Is(err, engine.ErrDecided) { // else it runs or ran; discarding its shell kills it
		t.refusal = err
	}
}

// discard kills what the engine could not, and removes its place.
func (t *target) discard(ctx context.Context) error {
	if err := t.shell.Discard(ctx); err != nil {
		return errs.New(errs.KindOf(err), "remove the copy: %w", errors.Join(err, t.refusal))
	}
	t.host.free(t.req.Migration)
	t.keepPages(!t.facts().Ran)
	return nil
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
		alive, err := t.seeAlive(ctx)
		if err != nil {
			t.log.Error("rest of the tree not killed", "error", err)
		} else if !alive {
			return
		}
	}
}

// seeAlive looks whether the released tree's root lives. Of one that has crashed, whatever is left is killed.
func (t *target) seeAlive(ctx context.Context) (alive bool, err error) {
	alive, _, signal := t.shell.Alive()
	switch {
	case alive:
		return true, nil
	case signal != 0: // one that has ended by itself has done its work; what it left running is its own
		if err := t.do(ctx, rules.Kill); err != nil {
			return false, err
		}
	}
	t.passed(signal)
	return false, nil
}

// passed notes that the released tree's root has ended.
func (t *target) passed(signal int) {
	t.mu.Lock()
	t.filling = tree.Filling{Over: true} // nobody waits for its memory any more
	t.mu.Unlock()
	t.log.Warn("released tree ended in probation", "signal", signal)
	t.event("the tree's root has ended", func(st *rules.Session) { st.Passed(signal) })
}

func (t *target) look(st *workerapi.SessionState) {
	st.FrozenFor, st.ReleasedAt = t.blackout, t.freed
	st.Filling = nil
	if f := t.filling; f.All > 0 && !f.Over {
		st.Filling = &workerapi.Filling{Done: f.Done, All: f.All}
	}
}
