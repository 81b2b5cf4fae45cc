package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"drover/engine/track/inject"
	"drover/internal/errs"
	"drover/worker/pace"
)

// StartInjector starts what makes system calls in a tree for this process, `drover keeper inject`: where the keepers are, because neither
// the end of the worker nor a restart of its service may reach it while it has a thread stopped.
func StartInjector() (i *inject.Injector, err error) {
	group, err := keepersGroup()
	if err != nil {
		return nil, err
	}
	defer group.Close()
	cmd := exec.Command("/proc/self/exe", "keeper", "inject")
	cmd.Args[0] = "drover"
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	err = pace.Normally(func() error {
		i, err = inject.Start(cmd)
		return err
	})
	return i, err
}

// injects is the process.
func injects() int {
	if err := inject.Serve(os.NewFile(inject.SocketFD, "asker")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return errs.KindOf(err).ExitCode()
	}
	return 0
}
