package workloads

import (
	"slices"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/worker/stat"
)

// TestAKernelThreadIsNotAdopted asks for one that is made up and, where this machine shows its own, for all of those: no pid
// namespace is about them on a machine that is nobody's guest.
func TestAKernelThreadIsNotAdopted(t *testing.T) {
	h := &Host{all: map[string]*entry{}}
	ps, err := readProcesses()
	if err != nil {
		t.Fatal(err)
	}
	made := 1 << 23 // above every pid
	ps[made] = stat.Process{Pid: made, Parent: 2, Comm: "kworker/0:1", Kernel: true}
	for pid, p := range ps {
		if !p.Kernel {
			continue
		}
		root, err := h.find(t.Context(), workload.Find{Pid: pid}, ps)
		if err == nil {
			err = h.mayAdopt(root, ps)
		}
		if errs.KindOf(err) != errs.Refused || !strings.Contains(err.Error(), "("+p.Comm+") is a kernel thread") || errs.NextOf(err) == "" {
			t.Errorf("process %d (%s): %v", pid, p.Comm, err)
		}
	}
}

// TestKernelThreadsAreKnownFromProcesses holds that what /proc says tells one from the other: pid 2 of a machine is kthreadd,
// and nothing of a test's own is any.
func TestKernelThreadsAreKnownFromProcesses(t *testing.T) {
	ps, err := readProcesses()
	if err != nil {
		t.Fatal(err)
	}
	if two, ok := ps[2]; ok && two.Comm == "kthreadd" && (!two.Kernel || two.Parent != 0) {
		t.Errorf("kthreadd is %+v", two)
	}
	own := slices.Collect(func(yield func(stat.Process) bool) {
		for _, p := range ps {
			if p.Comm == "workloads.test" && !yield(p) {
				return
			}
		}
	})
	if len(own) == 0 {
		t.Error("the test itself is not among the processes")
	}
	for _, p := range own {
		if p.Kernel {
			t.Errorf("the test is taken for a kernel thread: %+v", p)
		}
	}
}
