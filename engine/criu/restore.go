package criu

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/rpc"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/internal/proc"
	"drover/engine/lazy"
	"drover/internal/errs"
	"drover/internal/migration"
)

const restoreLog = "restore.log"

// Restore implements engine.Engine.
func (e *Engine) Restore(ctx context.Context, req engine.RestoreRequest) (engine.Hold, error) {
	final, err := req.FinalState.Resolve(migration.OpRestore)
	if err != nil {
		return nil, err
	}
	if err := mayRestore(req); err != nil {
		return nil, err
	}
	r, inherit, err := e.startRestore(req)
	if err != nil {
		return nil, err
	}
	if err := r.ready(ctx, &req); err != nil {
		r.giveUp()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout(req.Timeout))
	defer cancel()
	begin := time.Now()
	opts := options(req.Options, r.s.images, restoreLog)
	opts.LeaveStopped = ptr(final == migration.Stopped)
	opts.InheritFd = inherit
	opts.LazyPages = ptr(req.Lazy)
	if req.Options.Root != "" {
		opts.Root = ptr(req.Options.Root)
	}
	if err := r.toHold(ctx, opts); err != nil {
		return nil, err
	}
	if r.relay != nil {
		_ = r.relay.Rebuilt() // a Filler that is gone does not vouch either
	}
	h := newHold(r.s, r.pid, engine.Stats{Restore: time.Since(begin)})
	h.committed, h.aborted = r.commit, r.abort
	h.ready = r.mayRun
	return h, nil
}

// mayRestore looks at what can be known to be wrong before anything is made.
func mayRestore(req engine.RestoreRequest) error {
	if req.Cgroup == "" {
		return errs.New(errs.Invalid, "a restore needs a cgroup of its own, so that a half-restored tree can be swept")
	}
	if there := proc.InCgroup(req.Cgroup); len(there) > 0 {
		return errs.New(errs.Conflict, "restore into %s: pid %d is in it: %w", req.Cgroup, there[0], engine.ErrConflict).WithNext("give the restore an empty cgroup")
	}
	if err := setFrozen(req.Cgroup, false); err != nil { // or CRIU would stand as soon as it is started there
		return errs.New(errs.Failed, "restore into %s: %w", req.Cgroup, err)
	}
	return nil
}

// startRestore starts CRIU in the tree's cgroup, where its children are to be born. Not by CLONE_INTO_CGROUP: Linux 6.18 kills what is
// born that way into a cgroup that has ever been killed (kill_seq). Moving a process costs a grace period of the kernel's, 10 ms and
// more.
func (e *Engine) startRestore(req engine.RestoreRequest) (*restore, []*rpc.InheritFd, error) {
	var files []*os.File
	var inherit []*rpc.InheritFd
	for _, key := range slices.Sorted(maps.Keys(req.Inherit)) {
		inherit = append(inherit, &rpc.InheritFd{Key: ptr(key), Fd: ptr(int32(firstFD + len(files)))})
		files = append(files, req.Inherit[key])
	}
	r := &restore{engine: e, cgroup: req.Cgroup}
	var prepare []func() error
	var err error
	if ns := inherited(req.Inherit); ns != nil {
		prepare = append(prepare, enter(ns))
		if r.network, err = duplicate(ns); err != nil {
			return nil, nil, errs.New(errs.Failed, "restore: keep the network namespace open: %w", err)
		}
	}
	if r.s, err = startFrom(prepare, forked{lives: true}, e.path, req.Images, files...); err != nil {
		r.leaveNetwork()
		return nil, nil, e.startFailed(err)
	}
	if r.network != nil {
		if err := lockNetwork(pathOf(r.network)); err != nil {
			r.giveUp()
			return nil, nil, errs.New(errs.Failed, "restore: %w", err)
		}
	}
	if err := moveInto(req.Cgroup, r.s.cmd.Process.Pid); err != nil {
		r.giveUp()
		return nil, nil, errs.New(errs.Failed, "restore into %s: %w", req.Cgroup, err)
	}
	return r, inherit, nil
}

// restore is one restore, from its request to its end.
type restore struct {
	engine *Engine
	s      *swrk
	cgroup string
	pid    int
	relay  *lazy.Relay // of a lazy one, else nil
	// network is the namespace that the tree is restored in, if it is the caller's, else nil. It is locked until the hold ends.
	network *os.File
}

// giveUp ends a CRIU that has been asked for nothing.
func (r *restore) giveUp() {
	r.s.kill()
	r.leaveNetwork()
}

// mayRun says why the tree must not run. If it may, its network is unlocked, as CRIU unlocks it at its answer: before sockets leave repair mode.
func (r *restore) mayRun() error {
	if r.relay != nil {
		if err := r.relay.Release(); err != nil {
			return err
		}
	}
	if r.network == nil {
		return nil
	}
	return removeLocks(pathOf(r.network), "")
}

// leaveNetwork leaves the namespace as it was. It may be called again.
func (r *restore) leaveNetwork() {
	if r.network == nil {
		return
	}
	if err := errors.Join(removeLocks(pathOf(r.network), ""), r.network.Close()); err != nil {
		r.engine.log.Warn("a network namespace may be left locked", "error", err)
	}
	r.network = nil
}

// ready waits until the images are there, looks at them, and finds who fills the memory that they leave out.
func (r *restore) ready(ctx context.Context, req *engine.RestoreRequest) (err error) {
	if req.AtReady != nil {
		if req.Lazy, err = req.AtReady(ctx); err != nil {
			return err
		}
	}
	check := image.Check
	if req.Lazy {
		if err := mayLazy("restore"); err != nil {
			return err
		}
		check = image.CheckLazy
	}
	if err := check(inDir(r.s.images, ".")); err != nil {
		return errs.New(errs.Invalid, "restore: %w", err).WithNext("take the images again")
	}
	if req.Lazy {
		if r.relay, err = lazy.NewRelay(r.s.images, r.killTree); err != nil {
			return err
		}
		r.s.beside = append(r.s.beside, r.relay)
	}
	return nil
}

// killTree ends the tree, and CRIU if that is still about to let go of it: it would wait for ever for what is dead.
func (r *restore) killTree() error {
	err := kill(context.Background(), r.cgroup)
	_ = r.s.cmd.Process.Kill() // it may have ended
	return err
}

// toHold brings the restore to its hold, or leaves nothing.
func (r *restore) toHold(ctx context.Context, opts *rpc.CriuOpts) error {
	resp, err := r.s.talk(ctx, &rpc.CriuReq{Type: rpc.CriuReqType_RESTORE.Enum(), Opts: opts}, func(n *rpc.CriuNotify) (ok, hold bool) {
		if n.GetScript() == "post-restore" { // rebuilt, network still locked, no instruction has run
			r.pid = int(n.GetPid())
			return false, true
		}
		return true, false
	})
	if err == nil && resp.GetType() == rpc.CriuReqType_NOTIFY {
		r.s.beside = append(r.s.beside, r.leaveCgroup())
		return nil
	}
	err = failure("restore", r.s.images, restoreLog, resp, err)
	if err := r.sweep(context.WithoutCancel(ctx)); err != nil {
		r.engine.log.Error("half-restored processes are left", "cgroup", r.cgroup, "error", err)
	}
	return err
}

// leaveCgroup begins to move CRIU out of the tree's cgroup, which the verdict need not wait for. The closer waits for it.
func (r *restore) leaveCgroup() io.Closer {
	moved := make(closer)
	go func() {
		defer close(moved)
		if err := moveHere(r.s.cmd.Process.Pid, r.cgroup); err != nil {
			r.engine.log.Debug("CRIU stays in the tree's cgroup until the hold ends", "cgroup", r.cgroup, "error", err)
		}
	}()
	return moved
}

// closer waits, when it is closed, for somebody else to have closed it.
type closer chan struct{}

func (c closer) Close() error {
	<-c
	return nil
}

// sweep ends CRIU and whatever it has made.
func (r *restore) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r.s.kill()
	err := kill(ctx, r.cgroup)
	r.leaveNetwork()
	return err
}

// commit follows CRIU until the tree runs, or is left stopped. A tree that CRIU does not release whole is killed: half of it
// may run, and the caller must be able to say that nothing does.
func (r *restore) commit(ctx context.Context) (engine.Stats, error) {
	if r.relay != nil {
		defer r.relay.Runs()
	}
	resp, err := r.s.result(ctx, true)
	if err == nil && resp.GetSuccess() {
		stats := r.s.restoreStats()
		go r.s.close() // the tree runs: the blackout does not wait for CRIU to end
		if r.network != nil {
			r.network.Close()
			r.network = nil
		}
		return stats, nil
	}
	err = errs.New(errs.Failed, "release pid %d: CRIU failed or died on the way, and the tree was killed: %w", r.pid, engine.ErrLost)
	if swept := r.sweep(context.WithoutCancel(ctx)); swept != nil {
		err = errs.New(errs.Failed, "release pid %d: CRIU failed or died on the way, and the tree could not be killed: %w: %w", r.pid, engine.ErrLost, swept).
			WithNext("kill what is in %s before the tree may run elsewhere", r.cgroup)
	}
	return engine.Stats{}, err
}

// abort leaves nothing of the tree.
func (r *restore) abort(ctx context.Context) error {
	if !r.s.ended() && r.s.answer(false) == nil {
		_, _ = r.s.result(ctx, false) // what it says does not matter: the sweep makes sure
	}
	if err := r.sweep(context.WithoutCancel(ctx)); err != nil {
		return errs.New(errs.Failed, "remove the restored pid %d: %w", r.pid, err)
	}
	return nil
}
