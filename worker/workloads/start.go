package workloads

import (
	"context"
	"os"
	"reflect"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/worker/keeper"
)

// Start starts or adopts spec's tree and returns when it runs. Repeating it with the same spec and epoch changes nothing. On an
// error nothing of it is left.
func (h *Host) Start(ctx context.Context, spec workload.Spec, epoch migration.Epoch) (workload.Status, error) {
	if err := spec.Validate(); err != nil {
		return workload.Status{}, err
	}
	if _, _, err := keeper.IDs(spec.User); err != nil {
		return workload.Status{}, err
	}
	e := h.entry(spec.Name)
	done, err := e.take(ctx)
	if err != nil {
		return workload.Status{}, err
	}
	defer done()
	old := h.record(e)
	if same, err := old.startable(spec, epoch); same || err != nil {
		return h.status(e), err
	}
	begin := h.run
	if spec.Kind == workload.Adopt {
		begin = h.adopt
	}
	if err := h.replaceTree(ctx, e, old, record{Spec: spec, Epoch: epoch, State: workload.Starting, Boot: h.boot}, begin); err != nil {
		return workload.Status{}, errs.New(errs.KindOf(err), "start workload %s: %w", spec.Name, err)
	}
	h.log.Info("workload started", "workload", spec.Name, "epoch", epoch, "pid", h.record(e).Pid)
	return h.status(e), nil
}

// startable says whether a tree of that spec may be started over what is remembered, or is there already.
func (r record) startable(spec workload.Spec, epoch migration.Epoch) (same bool, err error) {
	if err := r.notOlder(epoch); err != nil {
		return false, err
	}
	known := r.State != gone && r.State != reserved
	switch {
	case known && epoch == r.Epoch && reflect.DeepEqual(r.Spec, spec):
		return true, nil
	case r.State == reserved:
		return false, errs.New(errs.Conflict, "workload %s is just moving to this host, with migration %s", spec.Name, r.Migration)
	case r.alive():
		return false, errs.New(errs.Conflict, "workload %s is on this host already, %s", spec.Name, r.State).WithNext("choose another name, or stop it with `drover stop %s`", spec.Name)
	case known && epoch == r.Epoch:
		return false, errs.New(errs.Conflict, "workload %s has %s on this host and is still listed", spec.Name, r.State).WithNext("remove it with `drover rm %s`", spec.Name)
	}
	return false, nil
}

// replaceTree makes place and tree for r by begin, in the stead of old, which has no living tree. If that fails, everything
// made is taken down and old is what is remembered. The caller has its turn with e.
func (h *Host) replaceTree(ctx context.Context, e *entry, old, r record, begin func(context.Context, *record, *undo) error) error {
	var u undo
	defer u.run(ctx, h)
	u.add(func(context.Context) error { return h.put(e, old) })
	if err := h.put(e, r); err != nil {
		return err
	}
	if err := begin(ctx, &r, &u); err != nil {
		return err
	}
	r.Started = time.Now().UTC()
	if err := h.put(e, r); err != nil {
		return err
	}
	u.keep()
	h.follow(e)
	return nil
}

// run starts r's command.
func (h *Host) run(ctx context.Context, r *record, u *undo) (err error) {
	if r.Place, err = h.plan(r.Spec, false); err != nil {
		return err
	}
	if err := h.clearOutput(r.Spec.Name); err != nil {
		return err
	}
	u.add(func(ctx context.Context) error { return h.tearDown(ctx, r.Spec, r.Place, dropOutput) })
	k, err := h.make(ctx, r.Spec, &r.Place, false)
	if err != nil {
		return err
	}
	var ns *os.File
	if path := h.netns(r.Spec); path != "" {
		if ns, err = os.Open(path); err != nil {
			return errs.New(errs.Failed, "open the network namespace: %w", err)
		}
		defer ns.Close()
	}
	launch := keeper.Launch{Spec: r.Spec, Output: h.store.output(r.Spec.Name)}
	for _, v := range r.Place.Volumes {
		launch.Volumes = append(launch.Volumes, keeper.Mount{Host: v.at(), Inside: v.Inside})
	}
	s, err := k.Start(ctx, launch, ns)
	if err != nil {
		return err
	}
	r.State, r.Pid, r.Birth = workload.Running, s.Pid, s.Birth
	return h.unfence(ctx, r.Spec)
}

// clearOutput removes what an earlier tree of that name said.
func (h *Host) clearOutput(name string) error {
	if err := os.RemoveAll(h.store.output(name)); err != nil {
		return errs.New(errs.Failed, "clear the output of workload %s: %w", name, err)
	}
	return nil
}

// tree is r's tree for an engine.
func (r record) tree() engine.Tree {
	return engine.Tree{Pid: r.Pid, Cgroup: r.Place.Cgroup, Lock: r.Place.Lock}
}
