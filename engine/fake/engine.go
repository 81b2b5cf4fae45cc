package fake

import (
	"context"
	"slices"
	"sync"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

// step is a point of an operation at which it notices that it has been given up.
type step string

const (
	probing    step = "probe"
	preDumping step = "pre-dump"
	freezing   step = "freeze" // dump, before the tree stands still
	paging     step = "pages"  // dump, before the first page is sent
	imaging    step = "images" // dump, before the rest is written
	dumpHeld   step = "dump held"
	restoring  step = "restore" // before anything of the tree exists
	rebuilding step = "rebuild" // restore, with half of the processes there
	restHeld   step = "restore held"
	killing    step = "kill"
	continuing step = "continue"
)

// Config says what the model's host can do; the zero value is a host like most: no soft-dirty.
type Config struct {
	SoftDirty bool
	Version   string // "" means 4.2.1
}

// Engine is the model of one host. Its methods may be called from several goroutines.
type Engine struct {
	cfg Config

	mu    sync.Mutex
	trees map[int]*tree  // by the root's pid on the host
	next  int            // the next free pid
	holds map[*hold]bool // undecided ones
}

var _ engine.Engine = (*Engine)(nil)

// New makes a host without trees.
func New(cfg Config) *Engine {
	if cfg.Version == "" {
		cfg.Version = "4.2.1"
	}
	return &Engine{cfg: cfg, trees: map[int]*tree{}, next: 1000, holds: map[*hold]bool{}}
}

// LoseHolds lets the processes behind all holds die that have not been ended.
func (e *Engine) LoseHolds() {
	e.mu.Lock()
	held := make([]*hold, 0, len(e.holds))
	for h := range e.holds {
		held = append(held, h)
	}
	e.mu.Unlock()
	for _, h := range held {
		h.die()
	}
}

// reach fails if ctx is done.
func reach(ctx context.Context, at step) error {
	if err := ctx.Err(); err != nil {
		return errs.New(errs.KindOf(err), "%s: given up: %w", at, err)
	}
	return nil
}

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	f := engine.Features{Engine: "fake", Version: e.cfg.Version, Kernel: "6.18.0-model", SoftDirty: e.cfg.SoftDirty}
	if !f.SoftDirty {
		f.Missing = []string{"soft-dirty page tracking: rounds use another tracker"}
	}
	return f, reach(ctx, probing)
}

// Kill implements engine.Engine.
func (e *Engine) Kill(ctx context.Context, t engine.Tree) error {
	if err := reach(ctx, killing); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if tr := e.find(t); tr != nil {
		delete(e.trees, tr.root)
	}
	return nil
}

// Continue implements engine.Engine.
func (e *Engine) Continue(ctx context.Context, t engine.Tree, keepStopped []int) error {
	if err := reach(ctx, continuing); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	tr := e.find(t)
	if tr == nil {
		return errs.New(errs.NotFound, "continue pid %d: %w", t.Pid, engine.ErrGone)
	}
	tr.frozen = false
	for _, p := range tr.procs {
		if !slices.Contains(keepStopped, p.Pid) {
			p.Stopped = false
		}
	}
	return nil
}

// find is the tree that t names, nil if it is gone. The caller holds mu.
func (e *Engine) find(t engine.Tree) *tree {
	if tr := e.trees[t.Pid]; tr != nil {
		return tr
	}
	if t.Cgroup == "" {
		return nil
	}
	for _, tr := range e.trees {
		if tr.cgroup == t.Cgroup {
			return tr
		}
	}
	return nil
}

// must is find with the error that a missing tree is.
func (e *Engine) must(what string, t engine.Tree) (*tree, error) {
	tr := e.find(t)
	if tr == nil {
		return nil, errs.New(errs.NotFound, "%s pid %d: %w", what, t.Pid, engine.ErrGone).WithNext("see `drover show` for how it ended")
	}
	if tr.busy {
		return nil, errs.New(errs.Conflict, "%s pid %d: %w", what, t.Pid, engine.ErrBusy)
	}
	return tr, nil
}

// PreDump implements engine.Engine.
func (e *Engine) PreDump(ctx context.Context, req engine.PreDumpRequest) (engine.Stats, error) {
	var stats engine.Stats
	if _, err := req.FinalState.Resolve(migration.OpPreDump); err != nil {
		return stats, err
	}
	if !e.cfg.SoftDirty {
		return stats, errs.New(errs.Refused, "pre-dump pid %d: %w", req.Tree.Pid, engine.ErrNoTracking).WithNext("use --tracker hash, which works on any kernel")
	}
	if err := reach(ctx, preDumping); err != nil {
		return stats, err
	}
	e.mu.Lock()
	tr, err := e.must("pre-dump", req.Tree)
	if err != nil {
		e.mu.Unlock()
		return stats, err
	}
	now := tr.copy()
	tr.dirty = map[place]bool{}
	e.mu.Unlock()
	if stats, err = now.writeMemory(ctx, req.Images, req.Pages, req.Parent); err != nil {
		return stats, errs.New(errs.Failed, "pre-dump pid %d: %w", req.Tree.Pid, err)
	}
	return stats, nil
}
