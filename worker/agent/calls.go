package agent

import (
	"context"
	"io"
	"time"

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
