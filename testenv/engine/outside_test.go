package engine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
)

// outside is a tree in a cgroup of its own whose processes are no children of this one, as those that drover tracks.
type outside struct {
	tree engine.Tree
	said string // the file it writes to
	done chan error
}

func startOutside(t testing.TB, argv ...string) *outside {
	t.Helper()
	dir, err := os.MkdirTemp(cgroups, "outside-")
	must(t, err)
	v := &outside{tree: engine.Tree{Cgroup: dir}, said: filepath.Join("/run", filepath.Base(dir)), done: make(chan error, 1)}
	keeper := exec.Command("sh", "-c", `(echo $(exec sh -c 'echo $PPID') >"$0"/cgroup.procs; exec setsid "$@" >"$SAID" 2>&1 </dev/null) & wait $!`, dir)
	keeper.Args = append(keeper.Args, argv...)
	keeper.Env = append(os.Environ(), "SAID="+v.said)
	must(t, keeper.Start())
	go func() { v.done <- keeper.Wait() }()
	t.Cleanup(func() {
		eventually(t, "the tree is gone", func() bool { // a process whose thread is just in execve(2) may be missed once
			must(t, os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0))
			return os.Remove(dir) == nil
		})
		os.Remove(v.said)
	})
	eventually(t, "the tree begins", func() bool {
		for _, pid := range v.pids() {
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			if slices.ContainsFunc(argv, func(arg string) bool { return programOf(arg) == filepath.Base(exe) }) { // one may begin the other
				v.tree.Pid = pid
				return true
			}
		}
		return false
	})
	return v
}

// programOf is the name of the file that a command is the name of, or a link to.
func programOf(command string) string {
	if at, err := exec.LookPath(command); err == nil {
		if file, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Base(file)
		}
	}
	return ""
}

func (v *outside) reports(t testing.TB) []string {
	b, err := os.ReadFile(v.said)
	if !errors.Is(err, fs.ErrNotExist) { // the tree has not begun yet
		must(t, err)
	}
	whole := b[:bytes.LastIndexByte(b, '\n')+1]
	return strings.Split(strings.TrimSpace(string(whole)), "\n")
}

// works returns when the tree has reported twice more.
func (v *outside) works(t testing.TB) {
	t.Helper()
	n := len(v.reports(t))
	eventually(t, "the tree reports", func() bool { return len(v.reports(t)) > n+1 })
}

func (v *outside) freeze(t testing.TB, on bool) {
	t.Helper()
	state := "0"
	if on {
		state = "1"
	}
	must(t, os.WriteFile(filepath.Join(v.tree.Cgroup, "cgroup.freeze"), []byte(state), 0))
	eventually(t, "the cgroup is frozen or not", func() bool {
		b, _ := os.ReadFile(filepath.Join(v.tree.Cgroup, "cgroup.events"))
		return strings.Contains(string(b), "frozen "+state)
	})
}

func (v *outside) pids() (pids []int) {
	b, _ := os.ReadFile(filepath.Join(v.tree.Cgroup, "cgroup.procs"))
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ends stops the program and looks at its last words.
func (v *outside) ends(t *testing.T) {
	t.Helper()
	must(t, unix.Kill(v.tree.Pid, unix.SIGTERM))
	select {
	case err := <-v.done:
		if err != nil {
			t.Errorf("the program ended with: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the program does not end")
	}
	v.lastWords(t)
}

// lastWords looks at the report of a program that has ended.
func (v *outside) lastWords(t *testing.T) {
	t.Helper()
	all := v.reports(t)
	var last struct{ Faults *uint64 }
	if err := json.Unmarshal([]byte(all[len(all)-1]), &last); err != nil || last.Faults == nil || *last.Faults != 0 {
		complaints := slices.DeleteFunc(all, func(line string) bool { return strings.HasPrefix(line, "{") && line != all[len(all)-1] })
		t.Errorf("its complaints and last words: %s", strings.Join(complaints, "\n"))
	}
}

// untouched looks for what a tracker might have left.
func (v *outside) untouched(t *testing.T) {
	t.Helper()
	for _, pid := range v.pids() {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.Contains(to, "userfaultfd") {
				t.Errorf("%s is %s", fd, to)
			}
		}
		smaps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
		for line := range strings.Lines(string(smaps)) {
			if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && slices.Contains(strings.Fields(flags), "uw") {
				t.Errorf("pid %d still has memory under write protection: %s", pid, line)
			}
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if len(status) > 0 && !strings.Contains(string(status), "TracerPid:\t0\n") {
			t.Errorf("pid %d is being traced", pid)
		}
	}
}
