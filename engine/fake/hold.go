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
	engine        *Engine
	tree          *tree
	commit, abort func()
	pid           int

	lost chan struct{}

	mu      sync.Mutex
	dead    bool
	decided migration.Verdict
	stats   engine.Stats
}

// hold begins a hold of a tree.
func (e *Engine) hold(tr *tree, h *hold) *hold {
	h.engine, h.tree, h.lost = e, tr, make(chan struct{})
	e.mu.Lock()
	e.holds[h] = true
	e.mu.Unlock()
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

func (h *hold) Commit(context.Context) (engine.Stats, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.decided == migration.Commit:
		return h.stats, nil
	case h.decided == migration.Abort:
		return h.stats, errs.New(errs.Conflict, "commit pid %d: %w", h.pid, engine.ErrDecided)
	case h.dead:
		return h.stats, errs.New(errs.Failed, "commit pid %d: %w", h.pid, engine.ErrLost)
	}
	h.end(migration.Commit, h.commit)
	return h.stats, nil
}

func (h *hold) Abort(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch h.decided {
	case migration.Abort:
		return nil
	case migration.Commit:
		return errs.New(errs.Conflict, "abort pid %d: %w", h.pid, engine.ErrDecided)
	}
	h.end(migration.Abort, h.abort)
	return nil
}

// end carries a verdict out. The caller holds mu.
func (h *hold) end(v migration.Verdict, do func()) {
	h.decided = v
	h.engine.change(func() {
		delete(h.engine.holds, h)
		h.tree.busy = false
		do()
	})
}
