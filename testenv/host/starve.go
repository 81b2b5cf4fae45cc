package host

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"drover/internal/errs"
)

// Starved are processes that get no more memory: the kernel's OOM killer ends each as soon as it asks for a page.
type Starved struct {
	group, home group
}

// starvedBytes is less than any process needs for its next page: what it has when it is starved is not counted.
const starvedBytes = 64 << 10

// Starve puts a process of the host (a machine's pid), and those that it will start, into a memory cgroup that is full. The caller ends
// it with Feed. The machine's memory controller is looked for in cgroup v1: a v2 group with processes cannot be given one.
func (h *Host) Starve(pid int) (*Starved, error) {
	home, err := memoryGroup(os.Getpid())
	if err != nil {
		return nil, errs.New(errs.Refused, "starve pid %d on host %s: %w", pid, h.Name, err)
	}
	s := &Starved{group: home.child(fmt.Sprintf("drover-testbed-%s-%s-%d", h.bed.ID, h.Name, pid)), home: home}
	if err := s.group.make(); err != nil {
		return nil, err
	}
	for _, w := range [][2]string{{"memory.limit_in_bytes", strconv.Itoa(starvedBytes)}, {"cgroup.procs", strconv.Itoa(pid)}} {
		if err := s.group.write(w[0], w[1]); err != nil {
			s.Feed()
			return nil, errs.New(errs.Failed, "starve pid %d on host %s: %w", pid, h.Name, err)
		}
	}
	return s, nil
}

// Feed ends it: whoever is left has memory as before. It may be called twice.
func (s *Starved) Feed() {
	_ = s.group.write("memory.limit_in_bytes", "-1")
	left, _ := os.ReadFile(filepath.Join(string(s.group), "cgroup.procs"))
	for _, pid := range strings.Fields(string(left)) {
		_ = s.home.write("cgroup.procs", pid) // it may have ended
	}
	_ = os.Remove(string(s.group))
}

// memoryGroup is a process's group in the v1 memory hierarchy.
func memoryGroup(pid int) (group, error) {
	text, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	defer text.Close()
	for lines := bufio.NewScanner(text); lines.Scan(); {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) == 3 && parts[1] == "memory" {
			for _, g := range []string{"/sys/fs/cgroup/memory" + parts[2], "/sys/fs/cgroup/memory"} { // in a container the path may be the outer one's
				if _, err := os.Stat(filepath.Join(g, "cgroup.procs")); err == nil {
					return group(g), nil
				}
			}
		}
	}
	return "", fmt.Errorf("no cgroup v1 memory controller is mounted at /sys/fs/cgroup/memory")
}
