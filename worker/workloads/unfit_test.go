package workloads

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

func TestAHostThatIsNotFitRefusesBeforeItTouchesAnything(t *testing.T) {
	old := errors.New("CRIU 3.17.1 at /usr/sbin/criu is too old")
	h := &Host{cfg: Config{Fit: func() error { return old }}, store: store{t.TempDir()}, all: map[string]*entry{}}
	spec := workload.Spec{Name: "w", Kind: workload.Run, Command: []string{"x"}}
	h.entry("w").rec = record{Spec: spec, State: workload.Running, Epoch: 1, Pid: 5}
	dir := filepath.Join(t.TempDir(), "checkpoint")
	id := migration.ID("0123456789abcdef")
	_, checkpointed := h.Checkpoint(t.Context(), "w", dir, migration.Running)
	_, lent := h.Lend(t.Context(), "w", 2, id)
	came := spec
	came.Name = "v"
	_, reserved := h.Reserve(t.Context(), workerapi.Inventory{Workload: "v", Spec: came}, 2, id)
	for what, err := range map[string]error{"checkpoint": checkpointed, "move away": lent, "move here": reserved} {
		if !errors.Is(err, old) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the checkpoint's directory: %v", err)
	}
	if r := h.record(h.entry("w")); r.State != workload.Running || r.Epoch != 1 || r.Migration != "" {
		t.Errorf("the record is %+v", r)
	}
}
