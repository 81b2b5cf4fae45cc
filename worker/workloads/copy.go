package workloads

import (
	"context"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/worker/cgroup"
)

// RemoveCopy forgets what is here of a workload that lives on another host, at epoch: the tree that a migration left fenced, one
// that has ended, or one of an older epoch, which is killed if it runs. Its volumes go as those of a tree that moved away.
// The workload itself is refused with errs.Conflict; having nothing of it is errs.NotFound.
func (h *Host) RemoveCopy(ctx context.Context, name string, epoch migration.Epoch) error {
	e, err := h.known(name)
	if err != nil {
		return err
	}
	exit, err := h.killCopy(ctx, e, epoch)
	if err != nil {
		return err
	}
	if exit != nil && !closedWithin(ctx, exit, endTime) {
		return errs.New(errs.Timeout, "the copy of workload %s has not ended after SIGKILL", name)
	}
	done, err := e.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	r := h.record(e)
	if err := r.isCopy(epoch); err != nil {
		return err
	}
	if r.alive() {
		return errs.New(errs.Conflict, "workload %s is %s on this host again", name, r.State)
	}
	r.Epoch = epoch
	return h.forget(ctx, e, r, moveAway)
}

// killCopy ends the tree of a copy; exit is closed when that is recorded, and nil if there was none.
func (h *Host) killCopy(ctx context.Context, e *entry, epoch migration.Epoch) (exit <-chan struct{}, err error) {
	done, err := e.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	r := h.record(e)
	if err := r.isCopy(epoch); err != nil || !r.alive() {
		return nil, err
	}
	return e.exit, cgroup.Group(r.Place.Cgroup).Kill(ctx)
}

// isCopy is nil for what is left of a workload that another host owns at epoch.
func (r record) isCopy(epoch migration.Epoch) error {
	name := r.Spec.Name
	if r.State == gone || r.State == reserved { // since known looked
		return errs.New(errs.NotFound, "workload %s is not on this host", name)
	}
	if err := r.mayChange("remove the copy of"); err != nil {
		return err
	}
	if err := r.notOlder(epoch); err != nil {
		return err
	}
	if r.alive() && r.State != workload.Fenced && r.Epoch == epoch {
		return errs.New(errs.Conflict, "workload %s is %s here and no copy", name, r.State).WithNext("drover stop %s, then drover rm %s", name, name)
	}
	return nil
}
