package fake

import (
	"context"
	"fmt"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

// Dump implements engine.Engine.
func (e *Engine) Dump(ctx context.Context, req engine.DumpRequest) (engine.Hold, error) {
	final := migration.Dead
	if req.FinalState != "" {
		var err error
		if final, err = req.FinalState.Resolve(migration.OpSnapshotDump); err != nil {
			return nil, err
		}
	}
	if err := req.Check(); err != nil {
		return nil, err
	}
	if req.Lazy {
		return nil, notLazy(fmt.Sprintf("dump pid %d", req.Tree.Pid))
	}
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	e.mu.Lock()
	tr, err := e.must("dump", req.Tree)
	if err == nil {
		tr.busy = true
	}
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	stats, err := e.dump(ctx, tr, req)
	if err != nil {
		e.change(func() { tr.busy, tr.frozen = false, false })
		return nil, err
	}
	return e.hold(tr, &hold{
		stats: stats, pid: req.Tree.Pid,
		commit: func() { e.applyFinal(tr, final) },
		abort:  func() { tr.frozen = false },
	}), nil
}

// dump does what stands before the hold.
func (e *Engine) dump(ctx context.Context, tr *tree, req engine.DumpRequest) (stats engine.Stats, err error) {
	if err := reach(ctx, freezing); err != nil {
		return stats, err
	}
	e.change(func() { tr.frozen = true })
	if req.AtFreeze != nil {
		if err := req.AtFreeze(ctx); err != nil {
			return stats, err
		}
	}
	if err := reach(ctx, paging); err != nil {
		return stats, err
	}
	// Only the frozen tree's own memory is touched from here on: nobody else may change it, and a slow receiver of its pages
	// must not stop the whole model.
	if stats, err = tr.writeMemory(ctx, req.Images, req.Pages, req.Parent); err != nil {
		return stats, errs.New(errs.Failed, "dump pid %d: %w", req.Tree.Pid, err)
	}
	if err := reach(ctx, imaging); err != nil {
		return stats, err
	}
	if err := tr.writeRest(req.Images); err != nil {
		return stats, fmt.Errorf("dump pid %d: %w", req.Tree.Pid, err)
	}
	if err := reach(ctx, dumpHeld); err != nil {
		return stats, err
	}
	return stats, nil
}

// applyFinal ends a dump that was committed. The caller holds mu.
func (e *Engine) applyFinal(tr *tree, final migration.FinalState) {
	switch final {
	case migration.Dead:
		delete(e.trees, tr.root)
	case migration.Stopped:
		tr.frozen = false
		for _, p := range tr.procs {
			p.Stopped = true
		}
	default:
		tr.frozen = false
	}
}

// change does something under the lock.
func (e *Engine) change(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

// notLazy is what a lazy request fails with: the model's trees have no memory to put a page into.
func notLazy(what string) error {
	return errs.New(errs.Refused, "%s: this engine has no lazy pages: %w", what, engine.ErrNotLazy).WithNext("ask without Lazy: Features.LazyPages says what an engine can")
}
