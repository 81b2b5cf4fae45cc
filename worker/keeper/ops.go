package keeper

import (
	"context"
	"encoding/json"
	"os"

	"drover/engine"
	"drover/internal/errs"
)

// do carries one call out. Descriptors are closed by the caller.
func (k *keeper) do(cl *call, r request, files []*os.File) (any, error) {
	switch r.Op {
	case opState:
		s, _ := k.tree.State()
		return s, nil
	case opWait:
		_, ended := k.tree.State()
		select {
		case <-ended:
		case <-cl.gone:
		case <-cl.ctx.Done():
		}
		s, _ := k.tree.State()
		return s, cl.ctx.Err()
	case opStart:
		return k.start(r, files)
	case opWatch:
		b, err := body[watchBody](r)
		if err != nil {
			return nil, err
		}
		return nil, k.tree.watch(b.Pid, b.Birth)
	case opProbe:
		return k.engine.Probe(cl.ctx)
	case opPreDump:
		return k.preDump(cl, r, files)
	case opDump:
		return k.dump(cl, r, files)
	case opRestore:
		return k.restore(cl, r, files)
	case opContinue:
		b, err := body[treeBody](r)
		if err != nil {
			return nil, err
		}
		return nil, k.engine.Continue(cl.ctx, b.Tree, b.KeepStopped)
	case opHold, opCommit, opAbort, opAwaitLost, opForget:
		return k.doHold(cl, r)
	case opQuit:
		return nil, k.mayHold() // a keeper that ends with a hold would undo it
	}
	return nil, errs.New(errs.Invalid, "this keeper knows no %q", r.Op)
}

func body[T any](r request) (T, error) {
	var b T
	if err := json.Unmarshal(r.Body, &b); err != nil {
		return b, errs.New(errs.Invalid, "the body of %q cannot be read: %w", r.Op, err)
	}
	return b, nil
}

func (k *keeper) start(r request, files []*os.File) (any, error) {
	b, err := body[startBody](r)
	if err != nil {
		return nil, err
	}
	if b.NetNS != (len(files) == 1) {
		return nil, errs.New(errs.Invalid, "start came with %d descriptors", len(files))
	}
	var netns *os.File
	if b.NetNS {
		netns = files[0]
	}
	if s, _ := k.tree.State(); s.Pid != 0 && !s.Exited {
		return nil, errs.New(errs.Conflict, "workload %s runs already, as process %d", k.config.Workload, s.Pid)
	}
	pid, err := launch(k.dir, k.config.Cgroup, b.Launch, netns)
	if err != nil {
		return nil, err
	}
	if err := k.tree.watch(pid, 0); err != nil {
		return nil, err
	}
	k.log.Info("the tree has been started", "pid", pid)
	s, _ := k.tree.State()
	return s, nil
}

func (k *keeper) preDump(cl *call, r request, files []*os.File) (any, error) {
	b, err := body[preDumpBody](r)
	if err != nil {
		return nil, err
	}
	if b.Request.Images, b.Request.Pages, err = imagesAndPages(files, b.Pages); err != nil {
		return nil, err
	}
	return k.engine.PreDump(cl.ctx, b.Request)
}

func (k *keeper) dump(cl *call, r request, files []*os.File) (any, error) {
	b, err := body[dumpBody](r)
	if err != nil {
		return nil, err
	}
	images, pages, err := imagesAndPages(files, b.Pages)
	if err != nil {
		return nil, err
	}
	req := b.Request.request(images, pages)
	if b.Ask {
		req.AtFreeze = func(ctx context.Context) error { return cl.ask(ctx, nil) }
	}
	over, err := k.begin()
	if err != nil {
		return nil, err
	}
	defer over()
	h, err := k.engine.Dump(cl.ctx, req)
	if err != nil {
		return nil, err
	}
	return k.keep(cl, opDump, h)
}

func (k *keeper) restore(cl *call, r request, files []*os.File) (any, error) {
	b, err := body[restoreBody](r)
	if err != nil {
		return nil, err
	}
	if len(files) != 1+len(b.Inherit) {
		return nil, errs.New(errs.Invalid, "restore came with %d descriptors for the images and %d namespaces", len(files), len(b.Inherit))
	}
	b.Request.Images = files[0]
	b.Request.Inherit = map[string]*os.File{}
	for i, key := range b.Inherit {
		b.Request.Inherit[key] = files[1+i]
	}
	if b.Ask {
		b.Request.AtReady = func(ctx context.Context) (lazy bool, err error) {
			err = cl.ask(ctx, &lazy)
			return lazy, err
		}
	}
	over, err := k.begin()
	if err != nil {
		return nil, err
	}
	defer over()
	h, err := k.engine.Restore(cl.ctx, b.Request)
	if err != nil {
		sweepTemp(files[0], k.log)
		return nil, err
	}
	if h, err = swept(h, files[0], k.log); err != nil {
		return nil, err
	}
	return k.keep(cl, opRestore, h)
}

func imagesAndPages(files []*os.File, pages bool) (images, socket *os.File, err error) {
	switch {
	case pages && len(files) == 2:
		return files[0], files[1], nil
	case !pages && len(files) == 1:
		return files[0], nil, nil
	}
	return nil, nil, errs.New(errs.Invalid, "a dump came with %d descriptors", len(files))
}

var _ engine.Engine = (*Client)(nil)
