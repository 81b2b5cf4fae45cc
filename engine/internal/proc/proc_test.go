package proc

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"drover/engine"
)

func TestATreeIsItsRootAndAllBelow(t *testing.T) {
	child := exec.Command("cat")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pids := OfTree(engine.Tree{Pid: os.Getpid()})
	if pids[0] != os.Getpid() || !slices.Contains(pids, child.Process.Pid) {
		t.Errorf("got %v, want %d first and %d among them", pids, os.Getpid(), child.Process.Pid)
	}
	in.Close()
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if pids := OfTree(engine.Tree{Pid: child.Process.Pid}); len(pids) != 0 {
		t.Errorf("a dead tree has %v", pids)
	}
}

func TestATreeIsWhatItsCgroupHolds(t *testing.T) {
	dir := t.TempDir() // of the same shape as a cgroup
	for file, procs := range map[string]string{"cgroup.procs": "12\n13\n", "below/cgroup.procs": "14\n"} {
		if err := os.MkdirAll(dir+"/below", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/"+file, []byte(procs), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pids := OfTree(engine.Tree{Pid: 1, Cgroup: dir})
	slices.Sort(pids)
	if !slices.Equal(pids, []int{12, 13, 14}) {
		t.Errorf("got %v", pids)
	}
}

func TestInnerPidOfAProcessWithoutANamespaceOfItsOwnIsItsPid(t *testing.T) {
	if got := InnerPid(os.Getpid()); got != os.Getpid() {
		t.Errorf("got %d", got)
	}
}
