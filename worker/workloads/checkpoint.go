package workloads

import (
	"context"
	"errors"
	"os"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
	"drover/worker/cgroup"
)

// Checkpoint writes a complete image of a tree into dir. Its volumes and its output are not in it: what the tree writes after
// a checkpoint that leaves it running may not agree with a copy that is restored later. Until the checkpoint is complete the
// tree can be let go on, and is if anything fails.
func (h *Host) Checkpoint(ctx context.Context, name, dir string, final migration.FinalState) (workerapi.CheckpointReport, error) {
	var report workerapi.CheckpointReport
	final, err := final.Resolve(migration.OpSnapshotDump)
	if err != nil {
		return report, err
	}
	e, err := h.known(name)
	if err != nil {
		return report, err
	}
	done, err := e.take(ctx)
	if err != nil {
		return report, err
	}
	defer done()
	r := h.record(e)
	if err := r.mayChange("checkpoint"); err != nil {
		return report, err
	}
	if r.State != workload.Running && r.State != workload.Stopped {
		return report, errs.New(errs.Conflict, "workload %s is %s: there is no tree to checkpoint", name, r.State).WithNext("see `drover show %s`", name)
	}
	if err := h.cfg.Fit(); err != nil {
		return report, errs.New(errs.KindOf(err), "checkpoint workload %s: %w", name, err)
	}
	if r, err = h.mayDump(ctx, e); err != nil {
		return report, err
	}
	d, err := takeCheckpointDir(dir)
	if err != nil {
		return report, err
	}
	if report, err = h.checkpoint(ctx, e, r, d, final); err != nil {
		return report, errs.New(errs.KindOf(err), "checkpoint workload %s: %w", name, err)
	}
	return report, nil
}

// checkpoint fills dir and closes it. If the tree is not given its final state dir is cleared, once the tree has been let go on.
func (h *Host) checkpoint(ctx context.Context, e *entry, r record, dir *checkpointDir, final migration.FinalState) (workerapi.CheckpointReport, error) {
	report := workerapi.CheckpointReport{Dir: dir.path(), Final: final}
	hold, m, err := h.beginCheckpoint(ctx, r, dir, final)
	// A tree that runs on need not wait for the digests; one that does not must be safe on the disk before it is let go.
	if err == nil && final == migration.Running {
		report.Stats, err = commit(ctx, hold)
	}
	if err == nil {
		report.Digest, report.Bytes, err = seal(dir, m)
	}
	mayDie := false // nobody may be left who could say whether it does
	if err == nil && final != migration.Running {
		report.Stats, err = commit(ctx, hold)
		mayDie = final == migration.Dead && errors.Is(err, engine.ErrLost)
	}
	if err != nil {
		over := false
		err = errors.Join(err, h.letGo(context.WithoutCancel(ctx), e, func(undone bool) {
			over = true
			if (!undone || mayDie) && final != migration.Running { // these images may be all that there is of the tree
				dir.Close()
			} else if err := dir.clear(); err != nil {
				h.log.Warn("a checkpoint that failed has left something", "workload", e.name, "error", err)
			}
		}))
		if !over { // it is cleared later, when others may have written there
			err = errors.Join(err, dir.settle())
		}
		return report, err
	}
	defer dir.Close()
	err = h.afterCheckpoint(ctx, e, r, final, m.KeepStopped)
	if err == nil {
		err = h.client(e.name).Forget(ctx)
	}
	if err != nil { // the final state stands: what is to be noted of it is tried again
		err = h.letGo(context.WithoutCancel(ctx), e, func(bool) {})
	}
	return report, errors.Join(err, closeToOthers(dir))
}

// beginCheckpoint dumps the tree into dir and returns while it is held, with what is to be said of it.
func (h *Host) beginCheckpoint(ctx context.Context, r record, dir *checkpointDir, final migration.FinalState) (engine.Hold, manifest, error) {
	m := manifest{Format: 1, Spec: r.Spec, Epoch: r.Epoch, Final: final, Made: time.Now().UTC(), KeepStopped: r.KeepStopped}
	var err error
	if m.Options, err = h.dumpOptions(ctx, r); err != nil {
		return nil, m, err
	}
	pids, err := cgroup.Group(r.Place.Cgroup).Pids()
	if err != nil {
		return nil, m, err
	}
	if r.State != workload.Stopped {
		m.KeepStopped = stoppedIn(pids)
	}
	k := h.client(r.Spec.Name)
	features, err := k.Probe(ctx)
	if err != nil {
		return nil, m, err
	}
	m.Engine = features.Version
	hold, err := k.Dump(ctx, engine.DumpRequest{Tree: r.tree(), Options: m.Options, FinalState: final, Images: dir.file})
	return hold, m, err
}

func commit(ctx context.Context, hold engine.Hold) (engine.Stats, error) {
	stats, err := hold.Commit(ctx)
	if err != nil {
		return stats, errs.New(errs.KindOf(err), "apply the final state: %w", err)
	}
	return stats, nil
}

// afterCheckpoint notes what the tree's final state makes of the workload, before what is known of the dump is forgotten: whoever finds that may do it
// again. A dead tree is recorded by who waits for its end.
func (h *Host) afterCheckpoint(ctx context.Context, e *entry, r record, final migration.FinalState, stopped []int) error {
	switch final {
	case migration.Stopped:
		if err := h.lockedAnew(&r); err != nil {
			return err
		}
		r.State, r.KeepStopped = workload.Stopped, stopped
		return h.put(e, r)
	case migration.Dead:
		if err := h.unlockDead(ctx, h.client(e.name), r); err != nil {
			return err
		}
		return cgroup.Group(r.Place.Cgroup).Kill(ctx)
	}
	return nil
}

// Restore brings a workload back from such a directory.
func (h *Host) Restore(ctx context.Context, name, dir string, final migration.FinalState, epoch migration.Epoch) (workload.Status, error) {
	final, err := final.Resolve(migration.OpRestore)
	if err != nil {
		return workload.Status{}, err
	}
	if err := workload.ValidName("workload", name); err != nil {
		return workload.Status{}, err
	}
	e := h.entry(name)
	done, err := e.take(ctx)
	if err != nil {
		return workload.Status{}, err
	}
	defer done()
	old := h.record(e)
	if err := old.notOlder(epoch); err != nil {
		return workload.Status{}, err
	}
	if old.alive() || old.State == reserved {
		return h.status(e), errs.New(errs.Conflict, "workload %s is on this host, %s", name, old.State).WithNext("stop it with `drover stop %s`", name)
	}
	images, m, err := unseal(dir)
	if err != nil {
		return workload.Status{}, err
	}
	defer images.Close()
	if m.Spec.Name != name {
		return workload.Status{}, errs.New(errs.Invalid, "checkpoint %s is of workload %s, not %s", dir, m.Spec.Name, name)
	}
	r := record{Spec: m.Spec, Epoch: epoch, State: workload.Starting, Boot: h.boot, KeepStopped: m.KeepStopped, Options: m.Options}
	begin := func(ctx context.Context, r *record, u *undo) error { return h.restore(ctx, r, u, images.file, final) }
	if err := h.replaceTree(ctx, e, old, r, begin); err != nil {
		return workload.Status{}, errs.New(errs.KindOf(err), "restore workload %s from %s: %w", name, dir, err)
	}
	return h.status(e), nil
}

func (h *Host) restore(ctx context.Context, r *record, u *undo, images *os.File, final migration.FinalState) (err error) {
	if r.Place, err = h.plan(r.Spec, false); err != nil {
		return err
	}
	u.add(func(ctx context.Context) error { return h.tearDown(ctx, r.Spec, r.Place, keepFiles) })
	k, err := h.make(ctx, r.Spec, &r.Place, true)
	if err != nil {
		return err
	}
	req := engine.RestoreRequest{Images: images, Options: h.restoreOptions(*r), FinalState: final, Cgroup: r.Place.Cgroup}
	if path := h.netns(r.Spec); path != "" {
		ns, err := os.Open(path)
		if err != nil {
			return err
		}
		defer ns.Close()
		req.Inherit = map[string]*os.File{netKey: ns}
	}
	hold, err := k.Restore(ctx, req)
	if err != nil {
		return err
	}
	u.add(hold.Abort)
	if _, err := commit(ctx, hold); err != nil {
		return err
	}
	if err := k.Forget(ctx); err != nil {
		return err
	}
	s, err := k.State(ctx)
	if err != nil {
		return err
	}
	r.State, r.Pid, r.Birth = workload.Running, s.Pid, s.Birth
	if final == migration.Stopped {
		r.State = workload.Stopped
	} else {
		r.KeepStopped = nil
	}
	return h.unfence(ctx, r.Spec)
}
