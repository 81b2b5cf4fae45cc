package workloads

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"drover/internal/errs"
)

// process is what /proc says of one.
type process struct {
	pid, parent, threads int
	rss                  int64 // bytes
	zombie, kernel       bool
	name                 string
}

// processes are those of a host by pid.
type processes map[int]process

// readProcesses reads all of /proc. Those that end meanwhile are left out.
func readProcesses() (processes, error) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil, errs.New(errs.Failed, "list processes: %w", err)
	}
	all := processes{}
	for _, n := range names {
		if pid, err := strconv.Atoi(n.Name()); err == nil {
			if p, ok := readProcess(pid); ok {
				all[pid] = p
			}
		}
	}
	return all, nil
}

// readProcess reads /proc/PID/stat, whose fields are numbered from 1 in proc_pid_stat(5).
func readProcess(pid int) (process, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	s := string(b)
	open, closed := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || closed < open {
		return process{}, false
	}
	f := strings.Fields(s[closed+1:]) // f[0] is field 3
	if len(f) < 22 {
		return process{}, false
	}
	num := func(field int) int64 {
		n, _ := strconv.ParseInt(f[field-3], 10, 64)
		return n
	}
	const kernelThread = 0x00200000 // PF_KTHREAD in linux/sched.h
	return process{
		pid: pid, name: s[open+1 : closed], zombie: f[0] == "Z" || f[0] == "X", parent: int(num(4)),
		kernel: num(9)&kernelThread != 0, threads: int(num(20)), rss: num(24) * int64(os.Getpagesize()),
	}, true
}

// tree lists a root and all its descendants, the root first.
func (ps processes) tree(root int) []int {
	children := map[int][]int{}
	for pid, p := range ps {
		children[p.parent] = append(children[p.parent], pid)
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
	for p := ps[pid].parent; p > 0 && len(all) < len(ps); p = ps[p].parent {
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
