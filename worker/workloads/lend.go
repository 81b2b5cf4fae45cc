package workloads

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"drover/engine"
	"drover/engine/track"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/worker/cgroup"
	"drover/worker/keeper"
	"drover/worker/tree"
)

var _ tree.Host = (*Host)(nil)

// lent is a tree of this host in a migration, on the source.
type lent struct {
	h      *Host
	e      *entry
	id     migration.ID
	rec    record // as it was lent
	client *keeper.Client
	opts   engine.Options
	hold   engine.Hold
	now    func() time.Time
}

// Lend gives a tree to a migration. Lending it again to the same one gives it as it is.
func (h *Host) Lend(ctx context.Context, name string, epoch migration.Epoch, id migration.ID) (tree.Lent, error) {
	if err := id.Valid(); err != nil {
		return nil, err
	}
	e, err := h.known(name)
	if err != nil {
		return nil, err
	}
	done, err := e.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	r := h.record(e)
	if err := r.notOlder(epoch); err != nil {
		return nil, err
	}
	if r.Migration == id && r.Role == migration.Source {
		return h.lentOf(ctx, e, r)
	}
	if err := r.mayChange("move"); err != nil {
		return nil, err
	}
	if r.State != workload.Running && r.State != workload.Stopped {
		return nil, errs.New(errs.Conflict, "workload %s is %s: there is no tree to move", name, r.State).WithNext("see `drover show %s`", name)
	}
	if err := h.cfg.Fit(); err != nil {
		return nil, errs.New(errs.KindOf(err), "move workload %s: %w", name, err)
	}
	if r, err = h.mayDump(ctx, e); err != nil {
		return nil, err
	}
	if r.State == workload.Running {
		pids, err := cgroup.Group(r.Place.Cgroup).Pids()
		if err != nil {
			return nil, err
		}
		r.KeepStopped = stoppedIn(pids)
	}
	r.Before, r.State, r.Migration, r.Role, r.Epoch = r.State, workload.Migrating, id, migration.Source, epoch
	l, err := h.lentOf(ctx, e, r)
	if err != nil {
		return nil, err
	}
	if err := h.put(e, r); err != nil {
		return nil, err
	}
	return l, nil
}

// lentOf finds what a lent tree is made of: how to dump it, and what its keeper holds.
func (h *Host) lentOf(ctx context.Context, e *entry, r record) (*lent, error) {
	l := &lent{h: h, e: e, id: r.Migration, rec: r, client: h.client(e.name), now: time.Now}
	if _, err := h.spawn(ctx, r.Spec, r.Place); err != nil {
		return nil, err
	}
	var err error
	if l.hold, err = l.client.HoldOf(ctx, false); err != nil {
		return nil, errs.New(errs.KindOf(err), "ask the keeper of workload %s: %w", e.name, err)
	}
	if l.opts, err = h.dumpOptions(ctx, r); err != nil {
		return nil, err
	}
	return l, nil
}

// safeOptions are those that cost nothing where they are not needed.
var safeOptions = engine.Options{TCPEstablished: true, FileLocks: true, LinkRemap: true, GhostLimit: 64 << 20}

// withSafe adds the safe options: what a look did not find may be there by the time of the dump.
func withSafe(o engine.Options) engine.Options {
	o.TCPEstablished, o.FileLocks, o.LinkRemap = true, true, true
	o.GhostLimit = max(o.GhostLimit, safeOptions.GhostLimit)
	return o
}

// External mounts of a tree, by CRIU's keys.
const outputKey = "drover-output"

func volumeKey(i int) string { return "drover-volume-" + strconv.Itoa(i) }

// dumpOptions are what a look at the tree asks for, and what drover knows because it built the tree's surroundings.
func (h *Host) dumpOptions(ctx context.Context, r record) (engine.Options, error) {
	opts := safeOptions
	if h.cfg.Look != nil && !gonePid(r.Pid) {
		looked, _, err := h.cfg.Look(ctx, r.Spec, r.tree())
		if err != nil {
			return opts, errs.New(errs.KindOf(err), "look at workload %s: %w", r.Spec.Name, err)
		}
		opts = withSafe(looked)
	}
	if r.Spec.Kind != workload.Run {
		return opts, nil
	}
	external := []string{"mnt[" + keeper.OutputInside + "]:" + outputKey}
	for i, v := range r.Place.Volumes {
		external = append(external, "mnt["+v.Inside+"]:"+volumeKey(i))
	}
	if hasNetNS(r.Spec) {
		inode, err := netInode(r.Pid)
		if err == nil { // a tree that is gone has none, and is not dumped either
			external = append(external, fmt.Sprintf("net[%d]:%s", inode, netKey))
		}
	}
	opts.External = merge(opts.External, external)
	return opts, nil
}

// merge adds what is not there yet.
func merge(a, b []string) []string {
	all := append([]string(nil), a...)
	for _, s := range b {
		there := false
		for _, t := range all {
			there = there || s == t
		}
		if !there {
			all = append(all, s)
		}
	}
	return all
}

// netInode is how CRIU names the network namespace of a process.
func netInode(pid int) (uint64, error) {
	s, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return 0, err
	}
	var inode uint64
	if _, err := fmt.Sscanf(s, "net:[%d]", &inode); err != nil {
		return 0, err
	}
	return inode, nil
}

func (l *lent) Tree() engine.Tree       { return l.rec.tree() }
func (l *lent) Engine() engine.Engine   { return l.client }
func (l *lent) Options() engine.Options { return l.opts }
func (l *lent) Hold() engine.Hold       { return l.hold }

func (l *lent) group() cgroup.Group { return cgroup.Group(l.rec.Place.Cgroup) }

func (l *lent) Freeze(ctx context.Context) error {
	if err := l.group().Freeze(ctx); err != nil {
		return err
	}
	return l.say(ctx, workload.HeldState)
}

func (l *lent) Thaw(ctx context.Context) error {
	if err := l.client.Undo(ctx, l.Tree()); err != nil {
		return err
	}
	return l.say(ctx, workload.Migrating)
}

// Throttle implements tree.Lent.
func (l *lent) Throttle() (tree.Throttle, error) { return cgroup.NewThrottle(l.group()) }

// Unthrottle implements tree.Lent.
func (l *lent) Unthrottle(before string) error { return l.group().Unthrottle(before) }

// say changes the state that is shown while the tree is lent. It is not worth an fsync in the blackout: a worker that comes
// back asks the cgroup.
func (l *lent) say(_ context.Context, s workload.State) error {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	if l.e.rec.Migration == l.id && l.e.rec.Role == migration.Source && l.e.rec.alive() {
		l.e.rec.State = s
	}
	return nil
}

func (l *lent) Fence(ctx context.Context) error   { return l.h.fence(ctx, l.rec.Spec) }
func (l *lent) Unfence(ctx context.Context) error { return l.h.unfence(ctx, l.rec.Spec) }

// Return gives the tree back. A hold must have been ended before: returning would run a tree that CRIU still has its hands on.
func (l *lent) Return(ctx context.Context, epoch migration.Epoch) error {
	return l.settle(ctx, func(r *record) error {
		if err := r.notOlder(epoch); err != nil {
			return err
		}
		r.Epoch, r.State = epoch, r.Before
		s, err := l.client.State(ctx)
		if err == nil && s.Exited && s.Pid == r.Pid || err != nil && gonePid(r.Pid) {
			r.ended(s)
			return l.h.clearAfter(ctx, *r)
		}
		if err := l.h.unfence(ctx, r.Spec); err != nil {
			return err
		}
		if err := l.client.Undo(ctx, r.tree()); err != nil {
			return err
		}
		return l.client.Forget(ctx)
	}, "give back")
}

// Leave ends the workload here. The verdict that moved it brought the next epoch.
func (l *lent) Leave(ctx context.Context, final migration.FinalState) error {
	return l.settle(ctx, func(r *record) error {
		if final == migration.Stopped {
			if err := l.h.fence(ctx, r.Spec); err != nil {
				return err
			}
			if err := l.h.lockedAnew(r); err != nil {
				return err
			}
			if err := l.h.put(l.e, *r); err != nil { // nobody knows the lock once the dump is forgotten
				return err
			}
			if err := l.client.Forget(ctx); err != nil {
				return err
			}
			r.Epoch, r.State = r.Epoch+1, workload.Fenced
			// Frozen or not, it is stopped: the freezer's part is over.
			return l.group().Thaw(ctx)
		}
		if err := l.h.unlockDead(ctx, l.client, *r); err != nil {
			return err
		}
		if err := l.h.tearDown(ctx, r.Spec, r.Place, moveAway); err != nil {
			return err
		}
		*r = record{Spec: workload.Spec{Name: r.Spec.Name}, Epoch: r.Epoch + 1, State: gone}
		return nil
	}, "leave")
}

// lockedAnew notes by which lock a dump has left its tree stopped. That of an earlier dump, which had left it so too, goes: the new one is in
// force. A dump that is undone takes its own along, and leaves the earlier one's.
func (h *Host) lockedAnew(r *record) error {
	lock := h.client(r.Spec.Name).NetworkLock()
	if lock == "" || lock == r.Place.Lock { // this was done before
		return nil
	}
	if err := h.unlock(r.Spec, r.Place.Lock); err != nil {
		return err
	}
	r.Place.Lock = lock
	return nil
}

// unlockDead removes the network lock of a tree that was dumped to be dead. Its address goes first, and its processes are gone:
// without the lock a packet for one of its connections would be answered by a reset.
func (h *Host) unlockDead(ctx context.Context, k *keeper.Client, r record) error {
	lock := k.NetworkLock()
	if lock == "" { // this was done before
		return nil
	}
	if err := h.disconnect(ctx, r.Spec); err != nil {
		return err
	}
	if err := cgroup.Group(r.Place.Cgroup).Kill(ctx); err != nil {
		return err
	}
	return h.unlock(r.Spec, lock)
}

// settle ends the lending by f, once; afterwards it does nothing.
func (l *lent) settle(ctx context.Context, f func(*record) error, what string) error {
	done, err := l.e.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	r := l.h.record(l.e)
	if r.Migration != l.id || r.Role != migration.Source {
		return nil
	}
	if err := f(&r); err != nil {
		return errs.New(errs.KindOf(err), "%s workload %s: %w", what, l.e.name, err)
	}
	r.Migration, r.Role, r.Before = "", "", ""
	l.h.mu.Lock()
	l.e.carried, l.e.carrier = nil, ""
	l.h.mu.Unlock()
	return l.h.put(l.e, r)
}

// Find returns what a migration has here, after a restart of this worker. While that cannot be said the workload's status says why.
func (h *Host) Find(ctx context.Context, id migration.ID) (tree.Lent, tree.Shell, error) {
	h.mu.Lock()
	var found *entry
	for _, e := range h.all {
		if id != "" && e.rec.Migration == id {
			found = e
		}
	}
	h.mu.Unlock()
	if found == nil {
		return nil, nil, errs.New(errs.NotFound, "migration %s has no tree on this host", id)
	}
	l, s, err := h.foundOf(ctx, found, h.record(found))
	if err == nil {
		h.ails(found, "")
		return l, s, nil
	}
	why := errs.New(errs.KindOf(err), "find out what the keeper of workload %s holds: %w", found.name, err)
	if why.Next == "" {
		why = why.WithNext("see whether its process, `drover keeper run %s`, is stopped (SIGCONT lets it run) or starved", h.keeperDir(found.name))
	}
	h.ails(found, fmt.Sprintf("migration %s waits, and this is tried again: %s: %s", id, why, why.Next))
	return nil, nil, why
}

func (h *Host) foundOf(ctx context.Context, e *entry, r record) (tree.Lent, tree.Shell, error) {
	if r.Role == migration.Source {
		l, err := h.lentOf(ctx, e, r)
		return l, nil, err
	}
	s, err := h.shellOf(ctx, e, r)
	return nil, s, err
}

// Memory implements tree.Lent.
func (l *lent) Memory() (tree.Memory, error) { return track.OpenStill(l.Tree()) }
