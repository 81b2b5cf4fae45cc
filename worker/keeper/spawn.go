package keeper

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/worker/cgroup"
	"drover/worker/pace"
)

// Group is the cgroup keepers live in, beside the trees': stopping the worker's service must not end them.
const Group = "_keepers"

// readyTime is how long a keeper may take to get ready.
const readyTime = 20 * time.Second

// Spawn starts a keeper in dir, which is made, and returns when it answers. binary is drover's own, "" for the running one.
// A keeper that lives there already is taken as it is. On an error there is no keeper; dir may be left.
func Spawn(ctx context.Context, dir Dir, c Config, binary string) (*Client, error) {
	client := &Client{Dir: dir}
	if conn, err := client.connect(ctx); err == nil {
		conn.Close()
		return client, nil
	}
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return nil, errs.New(errs.Failed, "make the keeper's directory: %w", err)
	}
	if err := writeJSON(dir.config(), c); err != nil {
		return nil, err
	}
	if binary == "" {
		binary = "/proc/self/exe"
	}
	if err := begin(ctx, dir, c, binary); err != nil {
		return nil, errs.New(errs.KindOf(err), "start the keeper of %s: %w", c.Workload, err)
	}
	return client, nil
}

func begin(ctx context.Context, dir Dir, c Config, binary string) error {
	group, err := keepersGroup()
	if err != nil {
		return err
	}
	defer group.Close()
	logFile, err := os.OpenFile(dir.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()

	cmd := exec.Command(binary, "keeper", "run", string(dir))
	cmd.Args[0] = "drover"
	cmd.Env = []string{"PATH=" + pathOr(os.Getenv("PATH"))}
	cmd.Dir = "/"
	cmd.Stderr = logFile
	cmd.ExtraFiles = []*os.File{readyWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if c.Rootfs != "" {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS
	}
	err = pace.Normally(cmd.Start)
	readyWrite.Close()
	if err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // reaps it, if it ends before this worker does

	said, err := awaitReady(ctx, ready)
	if err != nil {
		_ = cmd.Process.Kill()
		return errs.New(errs.Failed, "it did not get ready: %w", err).WithNext("see %s", dir.Log())
	}
	return said.err()
}

func pathOr(path string) string {
	if path == "" {
		return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return path
}

func keepersGroup() (*os.File, error) {
	mount, err := cgroup.Mount()
	if err != nil {
		return nil, err
	}
	g := cgroup.For(mount, Group)
	if err := g.Make(); err != nil {
		return nil, err
	}
	return os.OpenFile(string(g), unix.O_PATH|unix.O_DIRECTORY, 0)
}

// keepersPids lists the keepers of this host, and the CRIUs that they run.
func keepersPids() ([]int, error) {
	group, err := keepersGroup()
	if err != nil {
		return nil, err
	}
	defer group.Close()
	return cgroup.Group(group.Name()).Pids()
}

// Gone returns when no keeper lives in dir.
func Gone(ctx context.Context, dir Dir) error {
	f, err := os.OpenFile(dir.lock(), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return errs.New(errs.Timeout, "the keeper in %s does not end", dir)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
