package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
	"drover/internal/errs"
	"drover/worker/cgroup"
)

// readyFD is a pipe on which a new keeper says that it is ready, or why not.
const readyFD = 3

// Main is `drover keeper`: args are what follows. It returns the exit code. Only drover itself calls it.
func Main(args []string) int {
	switch {
	case len(args) == 1 && args[0] == "setup":
		runtime.LockOSThread()
		setup() // becomes the tree
	case len(args) == 6 && args[0] == "fill":
		return fill(args[1] == "true", args[2] == "true", Dir(args[3]), args[4], args[5])
	case len(args) == 1 && args[0] == "inject":
		return injects()
	case len(args) == 2 && args[0] == "run":
		return run(Dir(args[1]))
	}
	fmt.Fprintln(os.Stderr, "drover keeper is started by drover's worker, not by hand")
	return errs.Invalid.ExitCode()
}

func run(dir Dir) int {
	ready := os.NewFile(readyFD, "ready")
	unix.CloseOnExec(readyFD)
	k, l, err := open(dir)
	if err != nil {
		_ = json.NewEncoder(ready).Encode(toWire(err))
		return errs.KindOf(err).ExitCode()
	}
	defer l.Close()
	_ = json.NewEncoder(ready).Encode(wireError{})
	ready.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go reapOrphans(ctx, func() int { s, _ := k.tree.State(); return s.Pid })
	return k.serve(l)
}

// open makes this process the keeper of dir.
func open(dir Dir) (*keeper, *net.UnixListener, error) {
	var c Config
	if err := readJSON(dir.config(), &c); err != nil {
		return nil, nil, err
	}
	lock, err := os.OpenFile(dir.lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, errs.New(errs.Conflict, "workload %s has a keeper already", c.Workload)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("become a subreaper: %w", err)
	}
	if c.Rootfs != "" {
		if err := mountRoot(dir, c.Rootfs); err != nil {
			return nil, nil, err
		}
	}
	level := slog.LevelInfo
	if c.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("workload", c.Workload)
	w, err := newWatcher(dir, log)
	if err != nil {
		return nil, nil, err
	}
	l, err := listen(dir)
	if err != nil {
		return nil, nil, err
	}
	return &keeper{
		dir: dir, config: c, log: log, lock: lock, tree: w, group: cgroup.Group(c.Cgroup), engine: newEngine(c, log), quit: make(chan struct{}),
	}, l, nil
}

// newEngine makes the engine of this keeper; tests of the protocol put a model in its place.
var newEngine = func(c Config, log *slog.Logger) engine.Engine { return criu.New(criu.Config{Path: c.CRIU, Log: log}) }

// listen makes the socket. Its path goes through a descriptor of its directory: a socket's own may have 107 bytes at most.
func listen(dir Dir) (*net.UnixListener, error) {
	if err := os.Remove(dir.socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	d, err := os.OpenFile(string(dir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: through(d, filepath.Base(dir.socket()))})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", dir.socket(), err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

func through(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}
