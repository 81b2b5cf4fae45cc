// Package proc finds the processes of a tree. It only reads /proc and cgroup directories, and takes what has just ended for
// what was never there.
package proc

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"drover/engine"
)

// OfTree lists the processes of a tree as this host sees them: those in its cgroup, or without one, its root and all below it.
// Nothing is listed of a tree that is gone.
func OfTree(t engine.Tree) []int {
	if t.Cgroup != "" {
		return InCgroup(t.Cgroup)
	}
	return Below(t.Pid)
}

// InCgroup lists the processes in a cgroup and the cgroups below it.
func InCgroup(cgroup string) (pids []int) {
	_ = filepath.WalkDir(cgroup, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			pids = append(pids, numbers(filepath.Join(path, "cgroup.procs"))...)
		}
		return nil // a group that has just been removed has no processes
	})
	return pids
}

// Below lists a process and its descendants.
func Below(root int) []int {
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", root)); err != nil {
		return nil
	}
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pids[i]))
		for _, t := range tasks {
			pids = append(pids, numbers(fmt.Sprintf("/proc/%d/task/%s/children", pids[i], t.Name()))...)
		}
	}
	return pids
}

func numbers(file string) (all []int) {
	b, _ := os.ReadFile(file)
	for f := range strings.FieldsSeq(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// InnerPid is a process's pid in its own pid namespace, by which CRIU's images name it: the last of NSpid in its status.
func InnerPid(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			all := strings.Fields(rest)
			if n, err := strconv.Atoi(all[len(all)-1]); err == nil {
				return n
			}
		}
	}
	return pid
}
