package keeper

import (
	"context"
	"errors"
	"time"

	"drover/engine"
	"drover/internal/errs"
)

// mayHold refuses a second hold beside one that has not been ended.
func (k *keeper) mayHold() error {
	k.mu.Lock()
	defer k.mu.Unlock()
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

// keep takes a new hold. A restored tree is watched from here on.
func (k *keeper) keep(kind string, h engine.Hold) holdAnswer {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.id = uint64(time.Now().UnixNano()) // another keeper, after this one's death, must not use a number again
	k.hold, k.kind, k.ended = h, kind, make(chan struct{})
	if kind == opRestore {
		if err := k.tree.watch(h.Pid(), 0); err != nil {
			k.log.Error("the restored tree cannot be watched", "pid", h.Pid(), "err", err)
		}
	}
	k.log.Info("held", "by", kind, "pid", h.Pid())
	return k.describe()
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
		k.log.Info("hold ended: commit", "err", err)
		return stats, err
	case opAbort:
		err := h.Abort(ctx)
		k.over(ended, err)
		k.log.Info("hold ended: abort", "err", err)
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
