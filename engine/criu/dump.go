package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

const dumpLog = "dump.log"

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
	if err := mayDump(req.Tree); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout(req.Timeout))
	defer cancel()
	d := &dump{engine: e, tree: req.Tree, final: final, pages: req.Pages, network: ownNetwork(req.Tree, req.Options)}
	usePages, err := d.start(req)
	if err != nil {
		return nil, err
	}
	opts := options(req.Options, d.s.images, dumpLog)
	if d.network != "" {
		opts.NetworkLock = rpc.CriuNetworkLockMethod_SKIP.Enum() // d locks it
	}
	opts.Pid = ptr(int32(req.Tree.Pid))
	opts.LeaveRunning = ptr(final == migration.Running)
	opts.LeaveStopped = ptr(final == migration.Stopped)
	setParent(opts, req.Parent)
	usePages(opts)

	if err := d.toHold(ctx, opts, req.AtFreeze); err != nil {
		return nil, err
	}
	h := newHold(d.s, req.Tree.Pid, engine.Stats{Frozen: time.Since(d.frozen)})
	h.committed, h.aborted = d.commit, d.abort
	return h, nil
}

// start starts CRIU with what takes the pages, which usePages puts into the request.
func (d *dump) start(req engine.DumpRequest) (usePages func(*rpc.CriuOpts), err error) {
	var prepare []func() error
	if d.network != "" {
		ns, err := os.Open(d.network)
		if err != nil {
			return nil, errs.New(errs.Failed, "dump pid %d: open its network namespace: %w", d.tree.Pid, err)
		}
		defer ns.Close()
		prepare = append(prepare, enter(ns))
	}
	if req.Lazy {
		return d.startLazy(req, prepare)
	}
	if d.s, err = startFrom(prepare, forked{}, d.engine.path, req.Images, pagesFile(req.Pages)...); err != nil {
		return nil, d.engine.startFailed(err)
	}
	return func(opts *rpc.CriuOpts) { setPages(opts, req.Pages) }, nil
}

// mayDump refuses what CRIU would only find out after ten seconds, or not name.
func mayDump(t engine.Tree) error {
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", t.Pid)); err != nil || t.Pid <= 0 {
		return errs.New(errs.NotFound, "dump pid %d: %w", t.Pid, engine.ErrGone).WithNext("see `drover show` for how it ended")
	}
	if t.Cgroup != "" && isFrozen(t.Cgroup) {
		return errs.New(errs.Conflict, "dump pid %d: its cgroup is frozen: %w", t.Pid, engine.ErrBusy).WithNext("a migration or checkpoint holds it; see `drover show`")
	}
	return nil
}

func timeout(d time.Duration) time.Duration {
	if d <= 0 {
		return defaultTimeout
	}
	return d
}

// dump is one dump, from its request to its end.
type dump struct {
	engine *Engine
	s      *swrk
	tree   engine.Tree
	final  migration.FinalState
	pages  *os.File // CRIU's end of the page connection, nil if pages go into the images directory
	left   *unseen  // nil if CRIU is shown all memory
	frozen time.Time

	// network is the path of the tree's network namespace if CRIU stands in it and drover locks it, else "".
	network string
	lock    string // CRIU's lock table, "" if its log does not name it
}

// toHold brings the dump to its hold, or leaves the tree running.
func (d *dump) toHold(ctx context.Context, opts *rpc.CriuOpts, atFreeze func(context.Context) error) error {
	var refused error
	looked := func() error { return nil } // waits for atFreeze
	looking, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		_ = looked()
	}()
	resp, err := d.s.talk(ctx, &rpc.CriuReq{Type: rpc.CriuReqType_DUMP.Enum(), Opts: opts}, func(n *rpc.CriuNotify) (ok, hold bool) {
		switch n.GetScript() {
		case "query-ext-files": // sent in every dump, when all is frozen and the network locked and nothing has been read yet
			d.frozen = time.Now()
			if d.network != "" {
				if refused = lockNetwork(d.network); refused != nil {
					return false, false
				}
			}
			if atFreeze != nil {
				ended := make(chan error, 1)
				go func() { ended <- atFreeze(looking) }()
				looked = sync.OnceValue(func() error { return <-ended })
			}
		case "post-dump":
			refused = looked()
			if refused == nil && d.left != nil {
				refused = d.left.describe(inDir(d.s.images, "."))
			}
			return false, refused == nil
		}
		return true, false
	})
	d.lock = lockOf(d.s.images)
	held := err == nil && resp.GetType() == rpc.CriuReqType_NOTIFY
	switch {
	case held && d.tree.Cgroup != "":
		// from here on neither CRIU's death nor ours lets the tree run
		if err = setFrozen(d.tree.Cgroup, true); err == nil {
			return nil
		}
		_ = d.s.answer(false) // who cannot be told has ended, and that ends the dump too
		err = errs.New(errs.Failed, "hold pid %d: %w", d.tree.Pid, err)
	case held:
		return nil
	case refused != nil:
		err = refused
	default:
		err = failure(fmt.Sprintf("dump pid %d", d.tree.Pid), d.s.images, dumpLog, resp, err)
	}
	return d.giveUp(err)
}

// unlock takes drover's own lock off the tree's network, once CRIU has put its sockets right.
func (d *dump) unlock() error {
	if d.network == "" {
		return nil
	}
	return removeLocks(d.network, d.lock)
}

// undoTime is how long CRIU may take to undo a dump that failed or was given up.
const undoTime = 5 * time.Second

// giveUp ends a dump that failed with cause and leaves the tree running. CRIU undoes everything by itself if it gets the time,
// also when the caller has run out of it: killed in the wrong moment, it would leave a process with the parasite's registers,
// which dies of them (SIGSEGV). What else a killed CRIU leaves, release undoes.
func (d *dump) giveUp(cause error) error {
	defer d.s.kill()
	takeNone(d.pages)
	if d.s.leave(undoTime) {
		return errors.Join(cause, d.unlock())
	}
	if d.tree.Cgroup != "" {
		_ = setFrozen(d.tree.Cgroup, true) // so that no read of the program meets a socket in repair mode; release reports what fails
	}
	d.s.kill()
	if err := d.release(); err != nil {
		d.engine.log.Error("a dump that failed could not be undone", "pid", d.tree.Pid, "error", err)
		return errs.New(errs.KindOf(cause), "%w; undoing it failed too: %s", cause, err.Error()).WithNext("look at the tree: it may be frozen, or deaf to its connections")
	}
	return cause
}

// takeNone has a CRIU that waits for somebody to take its pages wait no longer. pages may be nil.
func takeNone(pages *os.File) {
	if pages != nil {
		_ = unix.Shutdown(int(pages.Fd()), unix.SHUT_RDWR) // it may be closed at the other end
	}
}

// commit follows CRIU to the final state. The verdict stands: if CRIU dies on the way, drover goes the rest of it.
func (d *dump) commit(ctx context.Context) (engine.Stats, error) {
	stats := engine.Stats{}
	resp, err := d.s.result(ctx, true)
	if err == nil && resp.GetSuccess() {
		stats = d.s.dumpStats()
		d.s.close()
	} else {
		d.engine.log.Warn("CRIU did not carry the verdict out, which is done without it", "pid", d.tree.Pid, "final", d.final, "error", err)
		d.s.kill()
		if err := d.applyFinal(ctx); err != nil {
			return stats, errs.New(errs.Failed, "leave pid %d %s: %w", d.tree.Pid, d.final, err)
		}
	}
	stats.Frozen = time.Since(d.frozen)
	if d.final == migration.Running {
		if err := d.unlock(); err != nil {
			return stats, errs.New(errs.Failed, "leave pid %d %s: %w", d.tree.Pid, d.final, err)
		}
	}
	if d.tree.Cgroup != "" { // an empty one too: what is put into a frozen cgroup stands
		if err := setFrozen(d.tree.Cgroup, false); err != nil {
			return stats, errs.New(errs.Failed, "leave pid %d %s: %w", d.tree.Pid, d.final, err)
		}
	}
	return stats, nil
}

// applyFinal does what CRIU does at the end of a dump, on a tree that its cgroup keeps frozen.
func (d *dump) applyFinal(ctx context.Context) error {
	switch d.final {
	case migration.Dead:
		return d.engine.Kill(ctx, d.tree)
	case migration.Stopped: // the network stays locked and sockets in repair mode, as CRIU would leave them
		return signalAll(d.tree, unix.SIGSTOP, nil)
	default:
		return d.release()
	}
}

// abort lets the tree run on.
func (d *dump) abort(ctx context.Context) error {
	if !d.s.ended() && d.s.answer(false) == nil {
		// the result says "failed", as asked; only a conversation that breaks needs more
		if _, err := d.s.result(ctx, false); err == nil {
			d.s.close()
			if err := d.unlock(); err != nil {
				return err
			}
			if d.tree.Cgroup == "" {
				return nil
			}
			return setFrozen(d.tree.Cgroup, false)
		}
	}
	d.s.kill()
	return d.release()
}

// release undoes what CRIU did not.
func (d *dump) release() error {
	if d.lock == "" && d.network == "" {
		d.engine.log.Error("CRIU's log does not name the nft table by which it has locked the tree's connections: if it got so far, they stay locked",
			"pid", d.tree.Pid, "log", filepath.Join(d.s.images.Name(), dumpLog), "next", "nft list tables; what is named "+lockPrefix+"… and no other dump's can be deleted")
	}
	return release(d.tree, d.lock)
}
