package workloads

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/worker/cgroup"
)

// Stop ends a tree: the signal (0: SIGTERM) to its root, then SIGKILL to all of it after grace (0: 10 s). A stopped or frozen
// tree cannot act on a signal and is killed at once; so is, after its grace, a root that is pid 1 of its namespace and has no
// handler: the kernel does not deliver such signals. The workload stays listed as exited.
func (h *Host) Stop(ctx context.Context, name string, signal int, grace time.Duration) (workload.Status, error) {
	if signal < 0 || signal > 64 {
		return workload.Status{}, errs.New(errs.Invalid, "there is no signal %d", signal)
	}
	if signal == 0 {
		signal = int(unix.SIGTERM)
	}
	if grace == 0 {
		grace = 10 * time.Second
	}
	e, err := h.known(name)
	if err != nil {
		return workload.Status{}, err
	}
	r, exit, err := h.signal(ctx, e, unix.Signal(signal))
	if err != nil || exit == nil {
		return h.status(e), err
	}
	if r.State != workload.Running {
		grace = 0
	}
	if !closedWithin(ctx, exit, grace) {
		if err := h.kill(ctx, e, r); err != nil {
			return h.status(e), err
		}
	}
	if !closedWithin(ctx, exit, endTime) {
		return h.status(e), errs.New(errs.Timeout, "workload %s has not ended after SIGKILL", name).
			WithNext("see what holds it: cat /proc/%d/stack", r.Pid)
	}
	return h.status(e), nil
}

// signal sends the first signal; exit is nil if the tree has ended already.
func (h *Host) signal(ctx context.Context, e *entry, sig unix.Signal) (r record, exit <-chan struct{}, err error) {
	done, err := e.take(ctx)
	if err != nil {
		return r, nil, err
	}
	defer done()
	r = h.record(e)
	if err := r.mayChange("stop"); err != nil {
		return r, nil, err
	}
	if !r.alive() {
		return r, nil, nil
	}
	if fd, err := unix.PidfdOpen(r.Pid, 0); err == nil {
		if sameProcess(r.Pid, r.Birth) {
			err = unix.PidfdSendSignal(fd, sig, nil, 0)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return r, nil, errs.New(errs.Forbidden, "signal the root of workload %s, pid %d: %w", r.Spec.Name, r.Pid, err).WithNext("give the worker CAP_KILL")
		}
	}
	return r, e.exit, nil
}

// kill ends what is left of a tree.
func (h *Host) kill(ctx context.Context, e *entry, was record) error {
	done, err := e.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	r := h.record(e)
	if r.Pid != was.Pid || r.Birth != was.Birth {
		return nil // ended, or another tree by now
	}
	if err := r.mayChange("stop"); err != nil {
		return err
	}
	return cgroup.Group(r.Place.Cgroup).Kill(ctx)
}

// closedWithin says whether c was closed in time.
func closedWithin(ctx context.Context, c <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-ctx.Done():
	case <-t.C:
	}
	return false
}

// Remove forgets a workload that has ended, and its output; force stops it first. Volumes stay, but those that came with a
// migration. Removing what is not there is errs.NotFound.
func (h *Host) Remove(ctx context.Context, name string, force bool) error {
	e, err := h.known(name)
	if err != nil {
		return err
	}
	if force {
		if _, err := h.Stop(ctx, name, int(unix.SIGKILL), time.Millisecond); err != nil {
			return err
		}
	}
	done, err := e.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	r := h.record(e)
	if err := r.mayChange("remove"); err != nil {
		return err
	}
	if r.alive() {
		return errs.New(errs.Conflict, "workload %s is %s", name, r.State).WithNext("stop it with `drover stop %s`, or remove it with --force", name)
	}
	return h.forget(ctx, e, r, dropOutput)
}

// Continue lets a stopped tree run; epoch is the workload's in the record, which names this host its owner. A tree that a
// migration left fenced lives elsewhere until the record has given the workload back, at a newer epoch.
func (h *Host) Continue(ctx context.Context, name string, epoch migration.Epoch) (workload.Status, error) {
	e, err := h.known(name)
	if err != nil {
		return workload.Status{}, err
	}
	done, err := e.take(ctx)
	if err != nil {
		return workload.Status{}, err
	}
	defer done()
	r := h.record(e)
	if err := r.mayContinue(epoch); err != nil {
		return h.status(e), err
	}
	group := cgroup.Group(r.Place.Cgroup)
	if err := h.client(name).Continue(ctx, r.tree(), r.KeepStopped); err != nil {
		return h.status(e), errs.New(errs.KindOf(err), "continue workload %s: %w", name, err)
	}
	if err := h.unfence(ctx, r.Spec); err != nil {
		return h.status(e), err
	}
	if err := group.Thaw(ctx); err != nil {
		return h.status(e), err
	}
	r.State, r.Epoch, r.KeepStopped, r.Migration, r.Role, r.Place.Lock = workload.Running, epoch, nil, "", "", ""
	if err := h.put(e, r); err != nil {
		return h.status(e), err
	}
	return h.status(e), nil
}

func (r record) mayContinue(epoch migration.Epoch) error {
	name := r.Spec.Name
	if err := r.mayChange("continue"); err != nil {
		return err
	}
	if err := r.notOlder(epoch); err != nil {
		return err
	}
	switch {
	case !r.alive():
		return errs.New(errs.Conflict, "workload %s has %s: there is nothing to continue", name, r.State).WithNext("see `drover show %s`", name)
	case r.State == workload.Fenced && epoch == r.Epoch:
		return errs.New(errs.Refused, "workload %s has moved to another host: continuing it here would make two of it", name).
			WithNext("drover help continue says how it can be given back to this host")
	}
	return nil
}
