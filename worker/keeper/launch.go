package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// launch starts a tree and returns its root's pid once the command has been executed. The root is born into its cgroup and
// is pid 1 of a pid namespace of its own; there is no other process between it and the keeper. netns is nil for the host's
// network. On an error nothing of it is left.
func launch(dir Dir, group string, l Launch, netns *os.File) (int, error) {
	planRead, err := written(plan{Launch: l, Root: dir.Root(), NetNS: netns != nil})
	if err != nil {
		return 0, err
	}
	defer planRead.Close()
	statusRead, statusWrite, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer statusRead.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		statusWrite.Close()
		return 0, err
	}
	defer null.Close()
	cgroup, err := os.OpenFile(group, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		statusWrite.Close()
		return 0, fmt.Errorf("open the cgroup: %w", err)
	}
	defer cgroup.Close()

	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), statusWrite.Fd(), planRead.Fd()}
	if netns != nil {
		files = append(files, netns.Fd())
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"drover", "keeper", "setup"}, &syscall.ProcAttr{
		Files: files,
		Env:   []string{},
		Sys: &syscall.SysProcAttr{
			Setsid:      true,
			Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			UseCgroupFD: true,
			CgroupFD:    int(cgroup.Fd()),
		},
	})
	statusWrite.Close()
	if err != nil {
		return 0, fmt.Errorf("start the setup stage: %w", err)
	}
	said, err := io.ReadAll(io.LimitReader(statusRead, 64<<10))
	if err == nil && len(said) == 0 {
		return pid, nil
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	_, _ = syscall.Wait4(pid, nil, 0, nil)
	var f failure
	if json.Unmarshal(said, &f) != nil {
		return 0, errors.Join(errs.New(errs.Failed, "the setup stage said %q", said), err)
	}
	return 0, &errs.Error{Kind: errs.KindNamed(f.Kind), Msg: f.Msg, Next: f.Next}
}

// written is a file without a name that holds v as JSON, open at its beginning.
func written(v any) (*os.File, error) {
	fd, err := unix.MemfdCreate("drover-plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "plan")
	if err := json.NewEncoder(f).Encode(v); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
