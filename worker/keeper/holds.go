package keeper

import (
	"context"
	"errors"
	"time"

	"drover/engine"
	"drover/internal/errs"
)

// begin lets one dump or restore begin, unless another goes on or has left a hold that has not been ended. Whoever asks for the hold waits
// until over is called: a tree that CRIU has its hands on is not to be taken for one that nobody holds.
func (k *keeper) begin() (over func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.work != nil {
		return nil, k.busy()
	}
	if err := k.unheld(); err != nil {
		return nil, err
	}
	work := make(chan struct{})
	k.work = work
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.work = nil
		close(work)
	}, nil
}

// atRest returns when no dump or restore goes on, or when cl's worker does not want to know any more.
func (k *keeper) atRest(cl *call) error {
	for {
		k.mu.Lock()
		work := k.work
		k.mu.Unlock()
		if work == nil {
			return nil
		}
		select {
		case <-work:
		case <-cl.gone:
			return k.busy()
		case <-cl.ctx.Done():
			return k.busy()
		}
	}
}

func (k *keeper) busy() error {
	return errs.New(errs.Conflict, "CRIU is still at work on workload %s: %w", k.config.Workload, engine.ErrBusy)
}

// mayHold refuses a second hold beside one that has not been ended.
func (k *keeper) mayHold() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.unheld()
}

// unheld is mayHold for a caller that holds mu.
func (k *keeper) unheld() error {
	if k.hold == nil {
		return nil
	}
	select {
	case <-k.ended:
		return nil
	default:
		return errs.New(errs.Conflict, "workload %s is held already by a %s: %w", k.config.Workload, k.kind, engine.ErrBusy)
	}
}

// keep takes a new hold for cl's worker. One that has given up or gone away has said to nobody that the tree is held, so that what was done is undone:
// the tree of a dump runs on, the copy of a restore is removed. A hold that cannot be ended stays, for whoever asks. A restored tree is
// watched from here on.
func (k *keeper) keep(cl *call, kind string, h engine.Hold) (any, error) {
	if cl.unwanted() {
		err := h.Abort(context.WithoutCancel(cl.ctx))
		k.log.Warn("nobody waits for the hold any more: what it held is let go", "by", kind, "pid", h.Pid(), "error", err)
		if err == nil {
			return nil, errs.New(errs.Aborted, "the worker went away during its call")
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.id = uint64(time.Now().UnixNano()) // another keeper, after this one's death, must not use a number again
	k.hold, k.kind, k.ended = h, kind, make(chan struct{})
	if kind == opRestore {
		if err := k.tree.watch(h.Pid(), 0); err != nil {
			k.log.Error("the restored tree cannot be watched", "pid", h.Pid(), "error", err)
		}
	}
	k.log.Info("held", "by", kind, "pid", h.Pid())
	return k.describe(), nil
}

// describe is what is said of the hold. The caller holds mu.
func (k *keeper) describe() holdAnswer {
	if k.hold == nil {
		return holdAnswer{}
	}
	return holdAnswer{ID: k.id, Kind: k.kind, Pid: k.hold.Pid(), Stats: k.hold.Stats()}
}

func (k *keeper) doHold(cl *call, r request) (any, error) {
	if r.Op == opHold {
		if err := k.atRest(cl); err != nil {
			return nil, err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.describe(), nil
	}
	b, err := body[holdBody](r)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	h, id, ended := k.hold, k.id, k.ended
	k.mu.Unlock()
	if h == nil || id != b.ID {
		return nil, errs.New(errs.NotFound, "the keeper of %s has no hold of number %d: %w", k.config.Workload, b.ID, engine.ErrLost)
	}
	// A verdict that has reached the keeper is carried out, whatever becomes of the worker or of its patience.
	ctx := context.WithoutCancel(cl.ctx)
	switch r.Op {
	case opCommit:
		stats, err := h.Commit(ctx)
		k.over(ended, err)
		k.log.Info("hold ended: commit", "error", err)
		return stats, err
	case opAbort:
		err := h.Abort(ctx)
		k.over(ended, err)
		k.log.Info("hold ended: abort", "error", err)
		return nil, err
	case opAwaitLost:
		select {
		case <-h.Lost():
			return nil, nil
		case <-ended:
		case <-cl.gone:
		case <-cl.ctx.Done():
		}
		return nil, errs.New(errs.Conflict, "the hold has ended")
	default: // opForget
		select {
		case <-ended:
		default:
			return nil, errs.New(errs.Conflict, "the hold of %s has not been ended: it cannot be forgotten", k.config.Workload)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.id == id {
			k.hold = nil
		}
		return nil, nil
	}
}

// over marks a hold as ended, unless ending it failed: a lost one can still be aborted. One that cannot be because it has been ended
// the other way is over too, however badly that went: CRIU may die between the verdict and its end, and kills the tree by that.
func (k *keeper) over(ended chan struct{}, err error) {
	if err != nil && !errors.Is(err, engine.ErrDecided) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-ended:
	default:
		close(ended)
	}
}
