package fake

import (
	"context"
	"sync"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

// hold is a dump or restore that waits. commit and abort run under Engine.mu.
type hold struct {
	engine                    *Engine
	tree                      *tree
	atHold, atCommit, atAbort Step
	commit, abort             func()
	pid                       int

	lost chan struct{}

	mu      sync.Mutex
	dead    bool
	decided migration.Verdict
	stats   engine.Stats
	err     error
}

// hold begins a hold of a tree.
func (e *Engine) hold(tr *tree, h *hold) *hold {
	h.engine, h.tree, h.lost = e, tr, make(chan struct{})
	e.mu.Lock()
	e.holds[h] = true
	lose := e.lose[h.atHold] > 0
	if lose {
		e.lose[h.atHold]--
	}
	e.mu.Unlock()
	if lose {
		h.die()
	}
	return h
}

// die is the end of the engine's process.
func (h *hold) die() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.decided == migration.Undecided && !h.dead {
		h.dead = true
		close(h.lost)
	}
}

func (h *hold) Pid() int { return h.pid }

func (h *hold) Lost() <-chan struct{} { return h.lost }

func (h *hold) Stats() engine.Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

func (h *hold) Commit(ctx context.Context) (engine.Stats, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.decided == migration.Commit:
		return h.stats, h.err
	case h.decided == migration.Abort:
		return h.stats, errs.New(errs.Conflict, "commit pid %d: %w", h.pid, engine.ErrDecided)
	case h.dead:
		return h.stats, errs.New(errs.Failed, "commit pid %d: %w", h.pid, engine.ErrLost)
	}
	h.end(ctx, migration.Commit, h.atCommit, h.commit)
	return h.stats, h.err
}

func (h *hold) Abort(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch h.decided {
	case migration.Abort:
		return h.err
	case migration.Commit:
		return errs.New(errs.Conflict, "abort pid %d: %w", h.pid, engine.ErrDecided)
	}
	h.end(ctx, migration.Abort, h.atAbort, h.abort)
	return h.err
}

// end carries a verdict out. A verdict that was given is carried out whatever becomes of ctx; a failure that a test asked for
// stays the verdict's result and leaves the tree as it is. The caller holds mu.
func (h *hold) end(ctx context.Context, v migration.Verdict, step Step, do func()) {
	h.decided = v
	h.err = h.engine.reach(context.WithoutCancel(ctx), step)
	h.engine.change(func() {
		delete(h.engine.holds, h)
		h.tree.busy = false
		if h.err == nil {
			do()
		}
	})
}
