package coordinator

import (
	"context"
	"io"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// run names the workload in the record first, so that its name and owner are one host's, then has the host start it.
func (c *Coordinator) run(ctx context.Context, req api.RunRequest) (api.Workload, error) {
	l, err := c.leading()
	if err != nil {
		return api.Workload{}, err
	}
	if err := req.Spec.Validate(); err != nil {
		return api.Workload{}, err
	}
	if req.Host == "" {
		if req.Spec.Kind == workload.Adopt {
			return api.Workload{}, errs.New(errs.Invalid, "workload %s is adopted: say on which host it is", req.Spec.Name).WithNext("--host HOST")
		}
		if req.Host, err = c.place(l, req.Spec.Name); err != nil {
			return api.Workload{}, err
		}
	}
	w, err := c.awake(l, req.Host)
	if err != nil {
		return api.Workload{}, err
	}
	name := req.Spec.Name
	epoch, err := c.add(ctx, req.Spec, req.Host)
	if err != nil {
		return api.Workload{}, err
	}
	st, err := w.Start(ctx, req.Spec, epoch)
	if err != nil {
		return api.Workload{}, c.startFailed(ctx, name, epoch, req.Host, err)
	}
	l.presence.note(req.Host, st)
	return c.started(ctx, l, name, epoch, nil)
}

// add names a workload in the record and says at which epoch it begins.
func (c *Coordinator) add(ctx context.Context, spec workload.Spec, owner string) (migration.Epoch, error) {
	if _, err := c.node.Propose(ctx, by(ctx), record.WorkloadAdd{Spec: spec, Owner: owner}); err != nil {
		return 0, err
	}
	w, err := c.workloadRecord(spec.Name)
	return w.Epoch, err
}

// startFailed forgets a workload that its host did not start. If whether it did is not known, the record keeps it: the host's
// next heartbeat tells.
func (c *Coordinator) startFailed(ctx context.Context, name string, epoch migration.Epoch, host string, err error) error {
	if unsure(err) {
		return errs.New(errs.Unavailable, "host %s did not say whether it started %s: %w", host, name, err).
			WithNext("drover show %s; drover rm --force %s to give it up", name, name)
	}
	if _, rerr := c.node.Propose(ctx, by(ctx), record.WorkloadRemove{Name: name, Epoch: epoch}); rerr != nil {
		c.log.Warn("a workload that did not start stays in the record", "workload", name, "error", rerr)
	}
	return errs.New(errs.KindOf(err), "start %s on %s: %w", name, host, err)
}

// unsure says whether a failed call may have had its effect.
func unsure(err error) bool {
	k := errs.KindOf(err)
	return k == errs.Unavailable || k == errs.Timeout || k == errs.Aborted
}

func (c *Coordinator) started(ctx context.Context, l *lead, name string, epoch migration.Epoch, spec *workload.Spec) (api.Workload, error) {
	if _, err := c.node.Propose(ctx, by(ctx), record.WorkloadStarted{Name: name, Epoch: epoch, Spec: spec}); err != nil {
		return api.Workload{}, err
	}
	return c.current(ctx, l, name)
}

// current is the workload with its host's word of this moment, or of the last heartbeat if it does not answer.
func (c *Coordinator) current(ctx context.Context, l *lead, name string) (api.Workload, error) {
	w, err := c.workloadRecord(name)
	if err != nil {
		return api.Workload{}, err
	}
	out := l.workloadNow(w, time.Now())
	h, err := c.hostRecord(w.Owner)
	if err != nil {
		return out, nil //nolint:nilerr // the host has left: what it said last is all there is
	}
	said, err := c.worker(h).Workloads(ctx)
	if err != nil {
		return out, nil //nolint:nilerr // it does not answer: its last heartbeat stands
	}
	for _, st := range said {
		if st.Name == name && st.Epoch == w.Epoch {
			out.Status = st
		}
	}
	return out, nil
}

// owner is a workload that is not being migrated, and its host.
func (c *Coordinator) owner(name, what string) (record.Workload, workerapi.Worker, error) {
	if _, err := c.leading(); err != nil {
		return record.Workload{}, nil, err
	}
	w, err := c.workloadRecord(name)
	if err != nil {
		return w, nil, err
	}
	if w.Migration != "" {
		return w, nil, errs.New(errs.Conflict, "cannot %s %s while migration %s moves it", what, name, w.Migration).
			WithNext("wait for it, or drover abort %s", w.Migration)
	}
	h, err := c.hostRecord(w.Owner)
	if err != nil {
		return w, nil, err
	}
	return w, c.worker(h), nil
}

// Stop ends the tree and records that it has ended.
func (c *Coordinator) Stop(ctx context.Context, name string, signal int, grace time.Duration) (api.Workload, error) {
	w, host, err := c.owner(name, "stop")
	if err != nil {
		return api.Workload{}, err
	}
	st, err := host.Stop(ctx, name, signal, grace)
	if err != nil {
		return api.Workload{}, errs.New(errs.KindOf(err), "stop %s on %s: %w", name, w.Owner, err)
	}
	if st.State == workload.Exited && w.Life != record.Exited {
		exited := record.WorkloadExited{Name: name, Epoch: w.Epoch, Code: st.ExitCode, Signal: st.Signal, At: st.Exited}
		if _, err := c.node.Propose(ctx, by(ctx), exited); err != nil {
			return api.Workload{}, err
		}
	}
	out, err := c.Workload(ctx, name)
	out.Status = st
	return out, err
}

// Checkpoint writes an image on the owner's disk.
func (c *Coordinator) Checkpoint(ctx context.Context, name, dir string, final migration.FinalState) (workerapi.CheckpointReport, error) {
	w, host, err := c.owner(name, "checkpoint")
	if err != nil {
		return workerapi.CheckpointReport{}, err
	}
	if _, err := final.Resolve(migration.OpSnapshotDump); err != nil {
		return workerapi.CheckpointReport{}, err
	}
	report, err := host.Checkpoint(ctx, name, dir, final)
	if err != nil {
		return report, errs.New(errs.KindOf(err), "checkpoint %s on %s: %w", name, w.Owner, err)
	}
	if report.Final == migration.Dead {
		_, err = c.node.Propose(ctx, by(ctx), record.WorkloadExited{Name: name, Epoch: w.Epoch, At: time.Now().UTC()})
	}
	return report, err
}

// Restore gives the workload to the host at a new epoch, so that no older copy may run again, then has it restored there.
func (c *Coordinator) Restore(ctx context.Context, name, host, dir string, final migration.FinalState) (api.Workload, error) {
	l, err := c.leading()
	if err != nil {
		return api.Workload{}, err
	}
	if _, err := final.Resolve(migration.OpRestore); err != nil {
		return api.Workload{}, err
	}
	worker, err := c.awake(l, host)
	if err != nil {
		return api.Workload{}, err
	}
	w, err := c.workloadRecord(name)
	isNew := errs.KindOf(err) == errs.NotFound && err != nil
	epoch := w.Epoch + 1
	if isNew {
		epoch, err = c.add(ctx, workload.Spec{Name: name}, host)
	} else {
		_, err = c.node.Propose(ctx, by(ctx), record.WorkloadRaise{Name: name, Epoch: w.Epoch, Owner: host})
	}
	if err != nil {
		return api.Workload{}, err
	}
	st, err := worker.Restore(ctx, name, dir, final, epoch)
	switch {
	case err == nil:
		l.presence.note(host, st)
		return c.started(ctx, l, name, epoch, &st.Spec)
	case isNew:
		return api.Workload{}, c.startFailed(ctx, name, epoch, host, err)
	case !unsure(err): // it is as dead as it was, only elsewhere
		if _, perr := c.node.Propose(ctx, by(ctx), record.WorkloadExited{Name: name, Epoch: epoch, Code: w.ExitCode, Signal: w.Signal, At: w.ExitedAt}); perr != nil {
			c.log.Warn("a failed restore was not recorded", "workload", name, "error", perr)
		}
	}
	return api.Workload{}, errs.New(errs.KindOf(err), "restore %s on %s: %w", name, host, err)
}

// Logs copies the output from the owner.
func (c *Coordinator) Logs(ctx context.Context, name string, opts workerapi.LogOptions, w io.Writer) error {
	if _, err := c.leading(); err != nil {
		return err
	}
	rec, err := c.workloadRecord(name)
	if err != nil {
		return err
	}
	h, err := c.hostRecord(rec.Owner)
	if err != nil {
		return err
	}
	return c.worker(h).Logs(ctx, name, opts, w)
}
