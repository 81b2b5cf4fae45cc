package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// errand is what enter is told: a command to run in a host.
type errand struct {
	Pid    int    // of the host's pid 1, as the machine sees it
	Cgroup string // directory of the group that the command starts in
	Argv   []string
	Log    string // a daemon's: a file in the host for its output; its pid is written to reportFd
}

// reportFd is where a daemon's pid, as the machine sees it, is written.
const reportFd = 3

// enter stays outside the host and runs the command inside, as its parent. The command inherits standard input, output and error
// and nothing else. A command dies with enter; a daemon does not, because the death signal would still be set in a restored copy.
func enter() error {
	var e errand
	if err := json.Unmarshal([]byte(os.Args[1]), &e); err != nil {
		return fmt.Errorf("read the errand: %w", err)
	}
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	group, err := os.Open(e.Cgroup)
	if err != nil {
		return fmt.Errorf("the host is down: %w", err)
	}
	if err := joinNamespaces(e.Pid); err != nil {
		return fmt.Errorf("the host is down: %w", err)
	}
	cmd := exec.Command(e.Argv[0], e.Argv[1:]...)
	if cmd.Err != nil {
		return cmd.Err
	}
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if e.Log == "" {
		cmd.Args = append([]string{tieName, cmd.Path}, cmd.Args...)
		cmd.Path = fmt.Sprintf("/proc/self/fd/%d", self.Fd()) // the child finds it there; this process is not in this /proc
	} else if err := detach(cmd, e.Log); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if e.Log != "" {
		report := os.NewFile(reportFd, "report")
		if _, err := fmt.Fprintln(report, cmd.Process.Pid); err != nil {
			return fmt.Errorf("report the daemon's pid: %w", err)
		}
		if err := report.Close(); err != nil {
			return err
		}
	}
	forwardSignals(cmd.Process)
	leaveLike(cmd.Wait())
	return nil
}

// tie runs as enter's child, in the host: it asks to be killed when its parent dies and becomes the command. The runtime's own
// Pdeathsig does not work here: it takes a parent that it cannot see, because that is outside its pid namespace, for a dead one.
func tie() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	return syscall.Exec(os.Args[1], os.Args[2:], os.Environ())
}

// joinNamespaces moves this thread, and the pid namespace of its future children, into the host.
func joinNamespaces(pid int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // a thread that shares its root with others may not change it
		return err
	}
	names := []string{"cgroup", "ipc", "uts", "net", "pid", "mnt"}
	files := make([]*os.File, 0, len(names))
	for _, name := range names { // all before the first join: the last one hides this /proc
		f, err := os.Open(filepath.Join("/proc", fmt.Sprint(pid), "ns", name))
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, f)
	}
	for i, f := range files {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("join the %s namespace: %w", names[i], err)
		}
	}
	return nil
}

// detach makes the command a daemon: a session of its own and files that exist inside the host, so that it can be dumped.
func detach(cmd *exec.Cmd, log string) error {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, out, out
	cmd.SysProcAttr.Setsid = true
	cmd.SysProcAttr.Pdeathsig = 0
	return nil
}

func forwardSignals(to *os.Process) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	go func() {
		for s := range signals {
			_ = to.Signal(s) // it may have ended, and then there is nothing to tell
		}
	}()
}

// leaveLike ends this process the way the command ended.
func leaveLike(err error) {
	var exit *exec.ExitError
	if err == nil {
		os.Exit(0)
	}
	if !errors.As(err, &exit) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", enterName, err)
		os.Exit(125)
	}
	status := exit.Sys().(syscall.WaitStatus)
	if !status.Signaled() {
		os.Exit(status.ExitStatus())
	}
	switch s := status.Signal(); s {
	case unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGHUP:
		signal.Reset(s)
		_ = unix.Kill(os.Getpid(), s)
		select {}
	default:
		os.Exit(128 + int(s))
	}
}
