package keeper

import (
	"context"
	"errors"
	"os"
	"sync"

	"drover/engine"
	"drover/internal/errs"
	"drover/worker/cgroup"
)

// Probe is engine.Engine's, done by the keeper; so are PreDump, Dump, Restore and Continue.
func (c *Client) Probe(ctx context.Context) (engine.Features, error) {
	var f engine.Features
	err := c.call(ctx, opProbe, nil, nil, &f)
	return f, err
}

// PreDump is engine.Engine's, done by the keeper.
func (c *Client) PreDump(ctx context.Context, req engine.PreDumpRequest) (engine.Stats, error) {
	files, pages := dumpFiles(req.Images, req.Pages)
	req.Images, req.Pages = nil, nil
	var s engine.Stats
	err := c.call(ctx, opPreDump, preDumpBody{Request: req, Pages: pages}, files, &s)
	return s, err
}

// Dump is engine.Engine's, done by the keeper: the hold is its, and outlives this worker.
func (c *Client) Dump(ctx context.Context, req engine.DumpRequest) (engine.Hold, error) {
	files, pages := dumpFiles(req.Images, req.Pages)
	atFreeze := req.AtFreeze
	asked := func(ctx context.Context) (any, error) { return nil, atFreeze(ctx) }
	if err := c.noteDump(req.Images.Name()); err != nil {
		return nil, err
	}
	req.Images, req.Pages, req.AtFreeze = nil, nil, nil
	var h holdAnswer
	if err := c.callAsking(ctx, opDump, dumpBody{Request: wireDump(req), Pages: pages, Ask: atFreeze != nil}, files, asked, &h); err != nil {
		if errors.Is(err, engine.ErrLost) { // the keeper died on the way: else it has undone what it began
			err = errors.Join(err, c.Undo(context.WithoutCancel(ctx), req.Tree))
		}
		return nil, err
	}
	return newHold(c, h), nil
}

// Restore is engine.Engine's, done by the keeper: the hold is its, and outlives this worker.
func (c *Client) Restore(ctx context.Context, req engine.RestoreRequest) (engine.Hold, error) {
	files := []*os.File{req.Images}
	var keys []string
	for key, f := range req.Inherit {
		keys, files = append(keys, key), append(files, f)
	}
	atReady := req.AtReady
	asked := func(ctx context.Context) (any, error) { return atReady(ctx) }
	req.Images, req.Inherit = nil, nil
	var h holdAnswer
	if err := c.callAsking(ctx, opRestore, restoreBody{Request: req, Inherit: keys, Ask: atReady != nil}, files, asked, &h); err != nil {
		return nil, err
	}
	return newHold(c, h), nil
}

// Kill is engine.Engine's. It needs no keeper: one that is stopped, or has ended with its tree, cannot keep the rest of it alive.
func (c *Client) Kill(ctx context.Context, t engine.Tree) error {
	if t.Cgroup == "" {
		return errs.New(errs.Invalid, "kill pid %d: a tree is killed by its cgroup, and none was given", t.Pid)
	}
	return cgroup.Group(t.Cgroup).Kill(ctx)
}

// Continue is engine.Engine's, done by the keeper.
func (c *Client) Continue(ctx context.Context, t engine.Tree, keepStopped []int) error {
	return c.call(ctx, opContinue, treeBody{Tree: t, KeepStopped: keepStopped}, nil, nil)
}

// Hold is the hold the keeper has, ended or not, nil without one. Ending an ended one the same way again gives the same
// answer, so that a worker that crashed after its verdict may repeat it.
func (c *Client) Hold(ctx context.Context) (engine.Hold, error) {
	h, err := c.held(ctx)
	if err != nil || h.ID == 0 {
		return nil, err
	}
	return newHold(c, h), nil
}

// HoldOf is Hold, but nil unless the hold is a dump's (restore false) or a restore's (restore true).
func (c *Client) HoldOf(ctx context.Context, restore bool) (engine.Hold, error) {
	h, err := c.held(ctx)
	if err != nil || h.ID == 0 || (h.Kind == opRestore) != restore {
		return nil, err
	}
	return newHold(c, h), nil
}

func (c *Client) held(ctx context.Context) (holdAnswer, error) {
	var h holdAnswer
	err := c.call(ctx, opHold, nil, nil, &h)
	return h, err
}

// Forget lets go of an ended hold, and of what is known of its dump; without one it does nothing else.
func (c *Client) Forget(ctx context.Context) error {
	h, err := c.held(ctx)
	if err == nil && h.ID != 0 {
		err = c.call(ctx, opForget, holdBody{ID: h.ID}, nil, nil)
	}
	if err != nil && !c.dead() { // a dead one has forgotten it
		return err
	}
	return c.forgetDump()
}

func dumpFiles(images, pages *os.File) ([]*os.File, bool) {
	if pages == nil {
		return []*os.File{images}, false
	}
	return []*os.File{images, pages}, true
}

// hold is a keeper's hold as the worker sees it.
type hold struct {
	client *Client
	said   holdAnswer

	once sync.Once
	lost chan struct{}

	mu    sync.Mutex
	stats engine.Stats
}

func newHold(c *Client, said holdAnswer) *hold {
	return &hold{client: c, said: said, stats: said.Stats, lost: make(chan struct{})}
}

func (h *hold) Pid() int { return h.said.Pid }

func (h *hold) Stats() engine.Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

// Commit of a hold whose keeper has died is engine.ErrLost: nobody is left who could carry it out.
func (h *hold) Commit(ctx context.Context) (engine.Stats, error) {
	var s engine.Stats
	if err := h.client.call(ctx, opCommit, holdBody{ID: h.said.ID}, nil, &s); err != nil {
		if !errors.Is(err, engine.ErrLost) && h.client.dead() {
			err = errs.New(errs.Failed, "the keeper that held it has died: %w", errors.Join(err, engine.ErrLost))
		}
		return h.Stats(), err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats = s
	return s, nil
}

// Abort undoes the operation, also when the keeper has died with the hold.
func (h *hold) Abort(ctx context.Context) error {
	err := h.client.call(ctx, opAbort, holdBody{ID: h.said.ID}, nil, nil)
	if err == nil || !errors.Is(err, engine.ErrLost) && !h.client.dead() {
		return err
	}
	var c Config
	if err := readJSON(h.client.Dir.config(), &c); err != nil {
		return err
	}
	if h.said.Kind == opRestore {
		return cgroup.Group(c.Cgroup).Kill(ctx)
	}
	return h.client.undo(ctx, engine.Tree{Pid: h.Pid(), Cgroup: c.Cgroup})
}

// dead says whether no keeper lives there.
func (c *Client) dead() bool {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	return Gone(now, c.Dir) == nil
}

// Lost is closed when CRIU or the keeper died. The look-out starts with the first call and ends with the hold.
func (h *hold) Lost() <-chan struct{} {
	h.once.Do(func() {
		go func() {
			err := h.client.call(context.Background(), opAwaitLost, holdBody{ID: h.said.ID}, nil, nil)
			if err == nil || errs.KindOf(err) != errs.Conflict {
				close(h.lost)
			}
		}()
	})
	return h.lost
}
