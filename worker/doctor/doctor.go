package doctor

import (
	"context"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// Doctor looks at the workloads of a worker's host and at the host. All fields must be set.
type Doctor struct {
	Workloads func(ctx context.Context) ([]workload.Status, error)
	Facts     func(ctx context.Context) (workerapi.HostFacts, error)
}

// Inspect looks at a workload of this host; errs.NotFound if there is none, errs.Conflict if it has no tree.
func (d Doctor) Inspect(ctx context.Context, name string) (workerapi.Inventory, error) {
	all, err := d.Workloads(ctx)
	if err != nil {
		return workerapi.Inventory{}, err
	}
	facts, err := d.Facts(ctx)
	if err != nil {
		return workerapi.Inventory{}, err
	}
	for _, w := range all {
		if w.Name != name {
			continue
		}
		if w.Pid == 0 || !alive(w.State) {
			return workerapi.Inventory{}, errs.New(errs.Conflict, "workload %s on %s is %s: it has no tree to look at", name, facts.Name, w.State)
		}
		return Inspect(ctx, engine.Tree{Pid: w.Pid, Cgroup: w.Cgroup}, w.Spec, w.Epoch, facts)
	}
	return workerapi.Inventory{}, errs.New(errs.NotFound, "there is no workload %s on %s", name, facts.Name).WithNext("list them with `drover workloads`")
}

// Judge says whether this host can take a tree with that inventory.
func (d Doctor) Judge(ctx context.Context, inv workerapi.Inventory) ([]workerapi.Finding, error) {
	all, err := d.Workloads(ctx)
	if err != nil {
		return nil, err
	}
	facts, err := d.Facts(ctx)
	if err != nil {
		return nil, err
	}
	here := map[string]workload.State{}
	for _, w := range all {
		here[w.Name] = w.State
	}
	return Judge(ctx, inv, facts, here)
}

// alive says whether a workload in that state has a tree on its host.
func alive(s workload.State) bool {
	return s != workload.Exited && s != workload.Lost
}

// Look is Inspect for someone who is about to dump the tree: its options, and the pids, as in the tree's own namespace, of
// processes that a signal has stopped.
func Look(ctx context.Context, spec workload.Spec, t engine.Tree) (engine.Options, []int, error) {
	inv, err := Inspect(ctx, t, spec, 0, workerapi.HostFacts{})
	return inv.Options, inv.StoppedPids, err
}
