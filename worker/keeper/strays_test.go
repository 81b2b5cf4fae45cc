package keeper

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatHasADirectoryOpenIsEnded(t *testing.T) {
	dir := t.TempDir()
	start := func(open string, session bool) *exec.Cmd {
		t.Helper()
		f, err := os.Open(open)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd := exec.Command("sleep", "1000")
		cmd.ExtraFiles = []*os.File{f}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	stray, other := start(dir, false), start(t.TempDir(), false)
	driven := start(dir, true) // by this process
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	pids := []int{os.Getpid(), driven.Process.Pid, other.Process.Pid, ended.Process.Pid, stray.Process.Pid}
	if err := endHolders(pids, dir); err != nil {
		t.Error(err)
	}
	var how unix.Siginfo
	if err := unix.Waitid(unix.P_PID, stray.Process.Pid, &how, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil || how.Signo != int32(unix.SIGCHLD) {
		t.Errorf("it lives: %v, %v", how.Signo, err)
	}
	for what, cmd := range map[string]*exec.Cmd{"in another directory": other, "that a keeper drives": driven} {
		if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &how, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil || how.Signo != 0 {
			t.Errorf("one %s was ended too: %v, %v", what, how.Signo, err)
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := endHolders(pids, dir); err != nil {
		t.Errorf("with the directory gone: %v", err)
	}
}
