package workloads

import (
	"slices"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/internal/workload"
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
	ps[made] = process{pid: made, parent: 2, name: "kworker/0:1", kernel: true}
	for pid, p := range ps {
		if !p.kernel {
			continue
		}
		root, err := h.find(t.Context(), workload.Find{Pid: pid}, ps)
		if err == nil {
			err = h.mayAdopt(root, ps)
		}
		if errs.KindOf(err) != errs.Refused || !strings.Contains(err.Error(), "("+p.name+") is a kernel thread") || errs.NextOf(err) == "" {
			t.Errorf("process %d (%s): %v", pid, p.name, err)
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
	if two, ok := ps[2]; ok && two.name == "kthreadd" && (!two.kernel || two.parent != 0) {
		t.Errorf("kthreadd is %+v", two)
	}
	own := slices.Collect(func(yield func(process) bool) {
		for _, p := range ps {
			if p.name == "workloads.test" && !yield(p) {
				return
			}
		}
	})
	if len(own) == 0 {
		t.Error("the test itself is not among the processes")
	}
	for _, p := range own {
		if p.kernel {
			t.Errorf("the test is taken for a kernel thread: %+v", p)
		}
	}
}
