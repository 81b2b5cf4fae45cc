package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"drover/engine"
	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
)

// Restore implements engine.Engine. It reads every page and refuses images in which one is not what the frozen tree had.
func (e *Engine) Restore(ctx context.Context, req engine.RestoreRequest) (engine.Hold, error) {
	final, err := req.FinalState.Resolve(migration.OpRestore)
	if err != nil {
		return nil, err
	}
	if req.Cgroup == "" {
		return nil, errs.New(errs.Invalid, "a restore needs a cgroup of its own, so that a half-restored tree can be swept")
	}
	if req.Lazy {
		return nil, notLazy("restore")
	}
	if req.AtReady != nil {
		if req.Lazy, err = req.AtReady(ctx); err != nil {
			return nil, err
		}
		if req.Lazy {
			return nil, notLazy("restore")
		}
	}
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	if err := reach(ctx, restoring); err != nil {
		return nil, err
	}
	tr, err := readTree(dirOf(req.Images))
	if err != nil {
		return nil, errs.New(errs.Failed, "restore: %w", err)
	}
	tr.cgroup, tr.frozen, tr.busy = req.Cgroup, true, true
	e.mu.Lock()
	if there := e.find(engine.Tree{Cgroup: req.Cgroup}); there != nil {
		e.mu.Unlock()
		return nil, errs.New(errs.Conflict, "restore into %s: there is a tree in it: %w", req.Cgroup, engine.ErrConflict)
	}
	e.adopt(tr)
	e.mu.Unlock()
	for _, at := range []step{rebuilding, restHeld} {
		if err := reach(ctx, at); err != nil {
			e.change(func() { delete(e.trees, tr.root) })
			return nil, err
		}
	}
	return e.hold(tr, &hold{
		pid: tr.root,
		commit: func() {
			tr.frozen = false
			for _, p := range tr.procs {
				p.Stopped = p.Stopped || final == migration.Stopped
			}
		},
		abort: func() { delete(e.trees, tr.root) },
	}), nil
}

// readTree reads a dump and holds every page against what its process must have.
func readTree(dir string) (*tree, error) {
	if err := image.Check(dir); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, treeFile))
	if err != nil {
		return nil, fmt.Errorf("%w: not made by this model: %w", engine.ErrBadImage, err)
	}
	tr := &tree{dirty: map[place]bool{}}
	if err := json.Unmarshal(b, &tr.procs); err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrBadImage, err)
	}
	for _, p := range tr.procs {
		n := 0
		err := image.ReadPages(dir, p.space(), func(addr uint64, data []byte) error {
			for ; len(data) > 0; data, addr = data[image.PageSize:], addr+image.PageSize {
				if addr != p.address(n) {
					return fmt.Errorf("process %d: page %#x instead of %#x: %w", p.Pid, addr, p.address(n), engine.ErrBadImage)
				}
				if err := p.verify(n, data[:image.PageSize]); err != nil {
					return err
				}
				tr.dirty[place{p.Pid, addr}] = true
				n++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if n != p.Pages {
			return nil, fmt.Errorf("process %d: %d pages of %d: %w", p.Pid, n, p.Pages, engine.ErrBadImage)
		}
	}
	return tr, nil
}
