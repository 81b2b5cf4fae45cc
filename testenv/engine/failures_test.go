package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
	"drover/internal/errs"
)

// TestRealFailuresAreExplained lets CRIU fail for real and holds what drover says of it.
func TestRealFailuresAreExplained(t *testing.T) {
	onHost(t, func() {
		for _, c := range dumpFailures {
			t.Run("dump/"+c.name, func(t *testing.T) { c.run(t, true) })
		}
		for _, c := range restoreFailures {
			t.Run("restore/"+c.name, func(t *testing.T) { c.run(t, false) })
		}
	})
}

// failureCase is a misfit whose dump, or whose restore after spoil, must fail with an explanation.
type failureCase struct {
	name    string
	misfit  string
	start   func(t *testing.T, c *exec.Cmd) // before it starts
	spoil   func(t *testing.T, m *misfitTree)
	options engine.Options
	is      error
	says    string // part of the message and the next step
}

var dumpFailures = []failureCase{
	{name: "io_uring", misfit: "io_uring", is: engine.ErrUnsupported, says: "io_uring"},
	{name: "userfaultfd", misfit: "userfaultfd", is: engine.ErrUnsupported, says: "userfaultfd"},
	{name: "a descriptor of a kind CRIU does not know", misfit: "fscontext", is: engine.ErrUnsupported, says: "fscontext"},
	{name: "multipath TCP", misfit: "mptcp", is: engine.ErrUnsupported, says: "multipathtcp=0"},
	{name: "a connection without the option", misfit: "connection", is: engine.ErrUnsupported, says: "established TCP"},
	{name: "a connection that waits to be accepted", misfit: "waiting connection", options: engine.Options{TCPEstablished: true}, is: engine.ErrMoment, says: "try again"},
	{name: "a file lock without the option", misfit: "lock", is: engine.ErrUnsupported, says: "file locks"},
	{name: "a large deleted file", misfit: "ghost", is: engine.ErrUnsupported, says: "misfit-ghost"},
	{name: "a file whose name is gone", misfit: "lost name", is: engine.ErrUnsupported, says: "misfit-name"},
	{name: "System V shared memory", misfit: "sysv shm", is: engine.ErrUnsupported, says: "IPC namespace"},
	{name: "a terminal", misfit: "nothing", start: onTerminal, is: engine.ErrUnsupported, says: "terminal"},
	{name: "somebody else's session", misfit: "nothing", start: func(_ *testing.T, c *exec.Cmd) { c.SysProcAttr.Setsid = false }, is: engine.ErrUnsupported, says: "session"},
	{name: "half of a socket pair", misfit: "nothing", start: onSocketPair, is: engine.ErrUnsupported, says: "outside the tree"},
	{name: "a tracer", misfit: "nothing", spoil: trace, is: engine.ErrUnsupported, says: "debugger"},
	{name: "no room for the images", misfit: "nothing", spoil: noRoom, is: engine.ErrConflict, says: "space"},
}

var restoreFailures = []failureCase{
	{name: "a file is missing", misfit: "file", spoil: func(t *testing.T, _ *misfitTree) { must(t, os.Remove("/root/misfit-file")) }, is: engine.ErrConflict, says: "root/misfit-file does not exist"},
	{name: "a file has another size", misfit: "file", spoil: func(t *testing.T, _ *misfitTree) { must(t, os.Truncate("/root/misfit-file", 3)) }, is: engine.ErrConflict, says: "3 bytes here and had 12"},
	{name: "a file has another mode", misfit: "file", spoil: func(t *testing.T, _ *misfitTree) { must(t, os.Chmod("/root/misfit-file", 0o644)) }, is: engine.ErrConflict, says: "chmod"},
	{name: "the pid is taken", misfit: "nothing", spoil: takePid, is: engine.ErrConflict, says: "is taken here"},
	{name: "the port is taken", misfit: "port", spoil: func(t *testing.T, _ *misfitTree) { must(t, listen("127.0.0.1:7077")) }, is: engine.ErrConflict, says: "listens on is taken"},
	{name: "the address is elsewhere", misfit: "address", spoil: func(t *testing.T, _ *misfitTree) {
		must(t, exec.Command("ip", "addr", "del", "10.77.0.1/24", "dev", "eth0").Run())
	}, is: engine.ErrConflict, says: "address is not on this host"},
	{name: "the cgroup is in use", misfit: "nothing", spoil: func(t *testing.T, m *misfitTree) { m.sleepIn(t, m.tree.Cgroup) }, is: engine.ErrConflict, says: "empty cgroup"},
	{name: "a core image is torn", misfit: "nothing", spoil: func(t *testing.T, m *misfitTree) {
		must(t, os.Truncate(filepath.Join(m.images.Name(), fmt.Sprintf("core-%d.img", m.tree.Pid)), 20))
	}, is: engine.ErrBadImage, says: "torn"},
	{name: "the memory map is missing", misfit: "nothing", spoil: func(t *testing.T, m *misfitTree) {
		must(t, os.Remove(filepath.Join(m.images.Name(), fmt.Sprintf("mm-%d.img", m.tree.Pid))))
	}, is: engine.ErrBadImage, says: "images"},
}

func (c failureCase) run(t *testing.T, atDump bool) {
	m := startMisfit(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if c.spoil != nil && atDump {
		c.spoil(t, m)
	}
	h, err := m.e.Dump(ctx, engine.DumpRequest{Tree: m.tree, Options: c.options, Images: m.images})
	if !atDump {
		if err != nil {
			t.Fatalf("dump: %v", err)
		}
		_, err = h.Commit(ctx)
		must(t, err)
		eventually(t, "the misfit is gone", func() bool { _, err := os.Stat(fmt.Sprintf("/proc/%d", m.tree.Pid)); return err != nil })
		c.spoil(t, m)
		_, err = m.e.Restore(ctx, engine.RestoreRequest{Images: m.images, Options: c.options, Cgroup: m.tree.Cgroup})
	}
	if !errors.Is(err, c.is) || !strings.Contains(err.Error()+" "+errs.NextOf(err), c.says) || errs.NextOf(err) == "" {
		t.Errorf("got %v (next: %s), want %q; CRIU's log ends:\n%s", err, errs.NextOf(err), c.says, endOfLog(m.images.Name()))
		return
	}
	t.Logf("%v\n    next: %s", err, errs.NextOf(err))
}

// endOfLog is what CRIU said last, and its errors.
func endOfLog(dir string) (out string) {
	text, err := os.ReadFile(filepath.Join(dir, "restore.log"))
	if err != nil {
		text, _ = os.ReadFile(filepath.Join(dir, "dump.log"))
	}
	lines := strings.SplitAfter(string(text), "\n")
	for i, line := range lines {
		if strings.Contains(line, "Error") || strings.Contains(line, "Warn") || i > len(lines)-10 {
			out += line
		}
	}
	return out
}

// misfitTree is a misfit that runs.
type misfitTree struct {
	e      *criu.Engine
	tree   engine.Tree
	images *os.File
}

func startMisfit(t *testing.T, c failureCase) *misfitTree {
	t.Helper()
	m := &misfitTree{e: criu.New(criu.Config{}), tree: engine.Tree{Cgroup: filepath.Join(cgroups, "misfit-"+filepath.Base(t.TempDir())+strings.Map(letters, t.Name()))}}
	must(t, os.Mkdir(m.tree.Cgroup, 0o755))
	ready := filepath.Join("/run", filepath.Base(m.tree.Cgroup))
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{misfitEnv + "=" + c.misfit, countersEnv + "=" + ready, "GODEBUG=multipathtcp=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.start != nil {
		c.start(t, cmd)
	}
	must(t, cmd.Start())
	go cmd.Wait()
	m.tree.Pid = cmd.Process.Pid
	must(t, os.WriteFile(filepath.Join(m.tree.Cgroup, "cgroup.procs"), fmt.Append(nil, m.tree.Pid), 0))
	t.Cleanup(func() {
		must(t, m.e.Kill(context.Background(), m.tree))
		must(t, os.Remove(m.tree.Cgroup))
		os.Remove(ready)
	})
	eventually(t, "the misfit is ready", func() bool { b, _ := os.ReadFile(ready); return string(b) == "<nil>" })
	var err error
	m.images, err = os.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { m.images.Close() })
	return m
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

// onTerminal gives the misfit a terminal whose other end is the test's.
func onTerminal(t *testing.T, c *exec.Cmd) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { master.Close() })
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	c.Stdin, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	c.SysProcAttr.Setctty = true
}

// onSocketPair gives the misfit a socket whose other end is the test's.
func onSocketPair(t *testing.T, c *exec.Cmd) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close() })
	c.Stdin = theirs
}

// trace attaches to the misfit as a debugger does, until the test ends.
func trace(t *testing.T, m *misfitTree) {
	attached, done, left := make(chan error), make(chan struct{}), make(chan struct{})
	onThreadThatEnds(func() { // and the tracing with it
		attached <- unix.PtraceSeize(m.tree.Pid)
		<-done
		close(left)
	})
	must(t, <-attached)
	t.Cleanup(func() { close(done); <-left })
}

// onThreadThatEnds runs f in the background on a thread of the kernel's that ends with it. The process's first thread, on which
// the runtime may just be running the goroutine, never does.
func onThreadThatEnds(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		defer runtime.UnlockOSThread()
		over := make(chan struct{})
		onThreadThatEnds(func() {
			defer close(over)
			f()
		})
		<-over
	}()
}

// noRoom puts the images on a file system that is too small.
func noRoom(t *testing.T, m *misfitTree) {
	dir := t.TempDir()
	must(t, unix.Mount("small", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	var err error
	m.images, err = os.Open(dir)
	must(t, err)
}

// takePid gives the pid that the tree had to somebody else.
func takePid(t *testing.T, m *misfitTree) {
	must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, m.tree.Pid-1), 0))
	cmd := exec.Command("sleep", "60")
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if cmd.Process.Pid != m.tree.Pid {
		t.Fatalf("got pid %d, wanted %d", cmd.Process.Pid, m.tree.Pid)
	}
}

func (m *misfitTree) sleepIn(t *testing.T, cgroup string) {
	cmd := exec.Command("sleep", "60")
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	must(t, os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
