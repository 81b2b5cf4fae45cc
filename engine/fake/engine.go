package fake

import (
	"context"
	"slices"
	"sync"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

// Step is a point of an operation at which a test can let it fail, take time or lose the engine's process.
type Step string

const (
	Probing    Step = "probe"
	PreDumping Step = "pre-dump"
	Freezing   Step = "freeze" // dump, before the tree stands still
	Paging     Step = "pages"  // dump, before the first page is sent
	Imaging    Step = "images" // dump, before the rest is written
	DumpHeld   Step = "dump held"
	DumpCommit Step = "dump commit"
	DumpAbort  Step = "dump abort"
	Restoring  Step = "restore" // before anything of the tree exists
	Rebuilding Step = "rebuild" // restore, with half of the processes there
	RestHeld   Step = "restore held"
	RestCommit Step = "restore commit"
	RestAbort  Step = "restore abort"
	Killing    Step = "kill"
	Continuing Step = "continue"
)

// Config says what the model's host can do; the zero value is a host like most: no soft-dirty.
type Config struct {
	SoftDirty bool
	Version   string                 // "" means 4.2.1
	Takes     map[Step]time.Duration // how long a step takes; time.Sleep, so a synctest bubble makes it virtual
}

// Engine is the model of one host. Its methods may be called from several goroutines.
type Engine struct {
	cfg Config

	mu    sync.Mutex
	trees map[int]*tree // by the root's pid on the host
	next  int           // the next free pid
	fail  map[Step][]error
	lose  map[Step]int
	holds map[*hold]bool // undecided ones
}

var _ engine.Engine = (*Engine)(nil)

// New makes a host without trees.
func New(cfg Config) *Engine {
	if cfg.Version == "" {
		cfg.Version = "4.2.1"
	}
	return &Engine{cfg: cfg, trees: map[int]*tree{}, next: 1000, fail: map[Step][]error{}, lose: map[Step]int{}, holds: map[*hold]bool{}}
}

// FailAt lets the next operation that comes to step fail there with err; several calls queue.
func (e *Engine) FailAt(step Step, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail[step] = append(e.fail[step], err)
}

// LoseAt lets the engine's process die at the next hold of that kind, DumpHeld or RestHeld, as soon as it is reached.
func (e *Engine) LoseAt(step Step) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lose[step]++
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

// reach takes the time a step takes and fails if the test wants that, or if ctx is done.
func (e *Engine) reach(ctx context.Context, step Step) error {
	if d := e.cfg.Takes[step]; d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return errs.New(errs.KindOf(err), "%s: given up: %w", step, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if q := e.fail[step]; len(q) > 0 {
		e.fail[step] = q[1:]
		return q[0]
	}
	return nil
}

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	f := engine.Features{Engine: "fake", Version: e.cfg.Version, Kernel: "6.18.0-model", SoftDirty: e.cfg.SoftDirty}
	if !f.SoftDirty {
		f.Missing = []string{"soft-dirty page tracking: rounds use another tracker"}
	}
	return f, e.reach(ctx, Probing)
}

// Kill implements engine.Engine.
func (e *Engine) Kill(ctx context.Context, t engine.Tree) error {
	if err := e.reach(ctx, Killing); err != nil {
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
	if err := e.reach(ctx, Continuing); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	tr := e.find(t)
	if tr == nil {
		return errs.New(errs.NotFound, "continue pid %d: %w", t.Pid, engine.ErrGone)
	}
	tr.locked, tr.frozen = false, false
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
	if err := e.reach(ctx, PreDumping); err != nil {
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
