package cgroup

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"

	"drover/internal/errs"
)

// Mount is the directory where this host's cgroup v2 hierarchy is mounted, alone or beside cgroup v1.
func Mount() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", errs.New(errs.Failed, "find the cgroup v2 mount: %w", err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if at, ok := cgroup2At(sc.Text()); ok {
			return at, nil
		}
	}
	return "", errs.New(errs.Refused, "this host has no cgroup v2 mount").
		WithNext("mount one: mount -t cgroup2 none /sys/fs/cgroup")
}

// cgroup2At reads one line of mountinfo (proc_pid_mountinfo(5)): the mount point is its fifth field, the file system's type
// the first after the separator.
func cgroup2At(line string) (string, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if !ok || len(fields) < 6 || !strings.HasPrefix(after, "cgroup2 ") {
		return "", false
	}
	return unescape(fields[4]), true
}

// unescape undoes the kernel's octal escapes of blanks in paths.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Of is the cgroup v2 path of a process, below the mount point.
func Of(pid string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			// A cgroup that was removed under a zombie is shown with this suffix.
			return strings.TrimSuffix(strings.TrimSpace(p), " (deleted)"), nil
		}
	}
	return "", errs.New(errs.Refused, "process %s is in no cgroup v2 group", pid)
}
