package agent

import (
	"context"
	"io"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// workloadCalls are the calls of workerapi.Worker that a host's workloads answer by themselves, with its contract.
type workloadCalls interface {
	Workloads(ctx context.Context) ([]workload.Status, error)
	Start(ctx context.Context, spec workload.Spec, epoch migration.Epoch) (workload.Status, error)
	Stop(ctx context.Context, name string, signal int, grace time.Duration) (workload.Status, error)
	Remove(ctx context.Context, name string, force bool) error
	RemoveCopy(ctx context.Context, name string, epoch migration.Epoch) error
	Continue(ctx context.Context, name string, epoch migration.Epoch) (workload.Status, error)
	Logs(ctx context.Context, name string, opts workerapi.LogOptions, w io.Writer) error
	Checkpoint(ctx context.Context, name, dir string, final migration.FinalState) (workerapi.CheckpointReport, error)
	Restore(ctx context.Context, name, dir string, final migration.FinalState, epoch migration.Epoch) (workload.Status, error)
}

// Open is workerapi.Worker's. Like Checkpoint it needs to know what the engine can do, and waits for that here, where nobody else is kept waiting: in
// the workloads' part it would be this workload's turn.
func (a *Agent) Open(ctx context.Context, req workerapi.OpenRequest) (workerapi.SessionState, error) {
	if err := a.engine.await(ctx); err != nil {
		return workerapi.SessionState{}, errs.New(errs.KindOf(err), "open migration %s: %w", req.Migration, err)
	}
	return a.Registry.Open(ctx, req)
}

// Checkpoint is workerapi.Worker's.
func (a *Agent) Checkpoint(ctx context.Context, name, dir string, final migration.FinalState) (workerapi.CheckpointReport, error) {
	if err := a.engine.await(ctx); err != nil {
		return workerapi.CheckpointReport{}, errs.New(errs.KindOf(err), "checkpoint workload %s: %w", name, err)
	}
	return a.workloadCalls.Checkpoint(ctx, name, dir, final)
}
