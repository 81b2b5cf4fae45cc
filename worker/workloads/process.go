package workloads

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"drover/internal/errs"
	"drover/worker/stat"
)

// processes are those of a host by pid.
type processes map[int]stat.Process

// readProcesses reads all of /proc. Those that end meanwhile are left out.
func readProcesses() (processes, error) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil, errs.New(errs.Failed, "list processes: %w", err)
	}
	all := processes{}
	for _, n := range names {
		if pid, err := strconv.Atoi(n.Name()); err == nil {
			if p, err := stat.Read(pid); err == nil {
				all[pid] = p
			}
		}
	}
	return all, nil
}

// tree lists a root and all its descendants, the root first.
func (ps processes) tree(root int) []int {
	children := map[int][]int{}
	for pid, p := range ps {
		children[p.Parent] = append(children[p.Parent], pid)
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		c := children[all[i]]
		slices.Sort(c)
		all = append(all, c...)
	}
	return all
}

// ancestors lists the parents of a process up to the host's init.
func (ps processes) ancestors(pid int) []int {
	var all []int
	for p := ps[pid].Parent; p > 0 && len(all) < len(ps); p = ps[p].Parent {
		all = append(all, p)
	}
	return all
}

// stoppedIn lists the processes of a group that a signal has stopped, as their own pid namespace numbers them.
func stoppedIn(pids []int) []int {
	var stopped []int
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			continue
		}
		state, inner := "", pid
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			f := strings.Fields(value)
			switch {
			case len(f) == 0:
			case key == "State":
				state = f[0]
			case key == "NSpid":
				inner, _ = strconv.Atoi(f[len(f)-1])
			}
		}
		if state == "T" {
			stopped = append(stopped, inner)
		}
	}
	slices.Sort(stopped)
	return stopped
}
