package workloads

import (
	"context"
	"errors"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
)

// A checkpoint belongs to no migration: nobody decides on what is left of one that failed, or whose worker died. Its tree goes on, and what
// cannot be undone at once is tried again until it is; the note of the dump (keeper.Client.Dumped) stays until then.

// undoAgain is how long after an attempt the next one begins.
const undoAgain = time.Second

// letGo lets a tree go on whose checkpoint has not come to its end. then is called when nothing is left of it, now or later, and
// hears whether the tree goes on as it was: a final state that has been applied stands. The caller may have e's turn.
func (h *Host) letGo(ctx context.Context, e *entry, then func(undone bool)) error {
	r := h.record(e)
	if !h.client(e.name).Dumped() {
		then(true)
		return nil
	}
	undone, err := h.abandonCheckpoint(ctx, e)
	if err == nil {
		then(undone)
		return nil
	}
	err = errs.New(errs.KindOf(err), "the tree may stand still; this is tried again: %w", err)
	h.ails(e, err.Error())
	h.log.Error("a checkpoint could not be undone", "workload", e.name, "error", err)
	h.tasks.Add(1)
	go func() {
		defer h.tasks.Done()
		h.letGoLater(e, r, then)
	}()
	return err
}

// letGoLater is letGo's part from the second attempt on. It ends when the tree has.
func (h *Host) letGoLater(e *entry, was record, then func(undone bool)) {
	for {
		select { // nothing announces that it can be done
		case <-h.ctx.Done():
			return
		case <-time.After(undoAgain):
		}
		done, err := e.take(h.ctx)
		if err != nil {
			return
		}
		r := h.record(e)
		over := r.Pid != was.Pid || r.Birth != was.Birth || r.State != workload.Running && r.State != workload.Stopped || !h.client(e.name).Dumped()
		if !over {
			undone, err := h.abandonCheckpoint(h.ctx, e)
			if over = err == nil; over {
				then(undone)
			}
		}
		if over {
			h.ails(e, "")
		}
		done()
		if over {
			return
		}
	}
}

// mayDump refuses another dump of a tree while something is left of the last one, which it would forget. It returns what is known of the tree then.
func (h *Host) mayDump(ctx context.Context, e *entry) (record, error) {
	if !h.client(e.name).Dumped() {
		return h.record(e), nil
	}
	_, err := h.abandonCheckpoint(ctx, e)
	return h.record(e), err
}

// abandonCheckpoint does what is to be done, once. The caller has e's turn.
func (h *Host) abandonCheckpoint(ctx context.Context, e *entry) (undone bool, err error) {
	r, k := h.record(e), h.client(e.name)
	err = k.Undo(ctx, r.tree())
	stands := errors.Is(err, engine.ErrDecided)
	if stands { // its worker did not live to say what its final state has made of the tree
		m, unsealed := sealed(k.Images())
		if unsealed != nil {
			m.Final = migration.Running // what else there is has a manifest before its final state
		}
		err = h.afterCheckpoint(ctx, e, r, m.Final, m.KeepStopped)
	}
	if err != nil {
		return false, errs.New(errs.KindOf(err), "let workload %s go on, whose last checkpoint has failed: %w", e.name, err)
	}
	h.log.Warn("a checkpoint did not come to its end", "workload", e.name, "goes on", !stands)
	return !stands, k.Forget(ctx)
}

// ails says what is wrong with a tree and is tried again, "" for nothing.
func (h *Host) ails(e *entry, what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.trouble = what
}
