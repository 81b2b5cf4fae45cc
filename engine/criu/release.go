package criu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/internal/proc"
	"drover/internal/errs"
)

// release lets a tree run that CRIU let go of without undoing its work, as when it was killed: sockets leave repair mode, the
// network is unlocked, the cgroup thawed, in this order, so that no read meets a socket in repair mode (EPERM). lock is the dump's
// own, as removeLocks takes it. A tree that is gone needs nothing.
func release(t engine.Tree, lock string) error {
	var failed []error
	for _, pid := range proc.OfTree(t) {
		if err := Unrepair(pid); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("sockets may be left in repair mode: %w", err))
		}
	}
	if err := removeLocks(netnsOf(t.Pid), lock); err != nil {
		failed = append(failed, err)
	}
	if t.Cgroup != "" {
		if err := setFrozen(t.Cgroup, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("the tree stays frozen: %w", err))
		}
	}
	if err := errors.Join(failed...); err != nil {
		return errs.New(errs.Failed, "let pid %d run: %w", t.Pid, err)
	}
	return nil
}

// Undo lets a tree run whose dump nobody is left to end: CRIU and who drove it have died, at whatever point of it, or CRIU has undone
// its own part only. images is the directory that the dump wrote to. Undoing what has been undone changes nothing.
func Undo(t engine.Tree, images string) error {
	if lock := LockName(images); lock != "" {
		return release(t, lock)
	}
	if t.Cgroup == "" { // CRIU had not begun: nothing of the tree is locked or in repair mode
		return nil
	}
	if err := setFrozen(t.Cgroup, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Failed, "let pid %d run: %w", t.Pid, err)
	}
	return nil
}

// LockName is the name of the nft table by which the dump that wrote to that directory has locked its tree's connections, "" if
// there was none. A successful dump leaves the table, and other dumps of this host have theirs beside it.
func LockName(images string) string {
	d, err := os.Open(images)
	if err != nil {
		return ""
	}
	defer d.Close()
	return lockOf(d)
}

// lockOf is LockName of a directory that is open.
func lockOf(images *os.File) string {
	id := runID(images, dumpLog)
	if id == "" {
		return ""
	}
	name := lockPrefix + id
	return name[:min(len(name), longestLock)]
}

// Unrepair turns TCP_REPAIR off on every TCP socket of a process that has it on, through copies of its descriptors
// (pidfd_getfd(2)); the process itself need not run.
func Unrepair(pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open pid %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return fmt.Errorf("list descriptors of pid %d: %w", pid, err)
	}
	var failed error
	for _, d := range fds {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, d.Name()))
		if err != nil || !strings.HasPrefix(to, "socket:") {
			continue
		}
		n, _ := strconv.Atoi(d.Name())
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		if err != nil {
			continue // closed meanwhile
		}
		if on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR); err == nil && on == 1 {
			failed = errors.Join(failed, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 0))
		}
		unix.Close(fd)
	}
	return failed
}

// lockPrefix begins the names of the nft tables that CRIU locks connections with; the rest is the dump's run id, cut off at the
// 31 characters that CRIU has for "inet CRIU-…" (criu/netfilter.c). A successful dump leaves its table, and so does a killed CRIU.
const (
	lockPrefix  = "CRIU-"
	longestLock = 31 - len("inet ")
	ownLock     = lockPrefix + "drover" // see lockNetwork
)

// openTables opens the nft tables of a network namespace, "" for the caller's own.
func openTables(netns string) (c *nftables.Conn, done func(), err error) {
	done = func() {}
	var opts []nftables.ConnOption
	if netns != "" {
		ns, err := os.Open(netns)
		if err != nil {
			return nil, nil, fmt.Errorf("open network namespace: %w", err)
		}
		done = func() { ns.Close() }
		opts = append(opts, nftables.WithNetNSFd(int(ns.Fd())))
	}
	if c, err = nftables.New(opts...); err != nil {
		done()
		return nil, nil, fmt.Errorf("speak to nftables: %w", err)
	}
	return c, done, nil
}

// removeLocks deletes the lock of that name, "" for none, and drover's own, which stands only where one tree has the namespace to itself. Whose
// the others are nobody can say: of dumps that go on beside this one, of trees that are stopped.
func removeLocks(netns, lock string) error {
	c, done, err := openTables(netns)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it went with its last process
	}
	if err != nil {
		return err
	}
	defer done()
	tables, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("list nft tables: %w", err)
	}
	n := 0
	for _, t := range tables {
		if t.Name == ownLock || lock != "" && t.Name == lock {
			c.DelTable(t)
			n++
		}
	}
	if n == 0 {
		return nil
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete CRIU's network locks: %w", err)
	}
	return nil
}

// Kill implements engine.Engine.
func (e *Engine) Kill(ctx context.Context, t engine.Tree) error {
	if t.Cgroup == "" {
		return errs.New(errs.Invalid, "kill pid %d: a tree is killed by its cgroup, and none was given", t.Pid)
	}
	if err := kill(ctx, t.Cgroup); err != nil {
		return errs.New(errs.Failed, "kill pid %d: %w", t.Pid, err)
	}
	return nil
}

// Continue implements engine.Engine.
func (e *Engine) Continue(ctx context.Context, t engine.Tree, keepStopped []int) error {
	if len(proc.OfTree(t)) == 0 {
		return errs.New(errs.NotFound, "continue pid %d: %w", t.Pid, engine.ErrGone).WithNext("see `drover show` for how it ended")
	}
	if err := release(t, t.Lock); err != nil {
		return err
	}
	if err := signalAll(t, unix.SIGCONT, keepStopped); err != nil {
		return errs.New(errs.Failed, "continue pid %d: %w", t.Pid, err)
	}
	return nil
}

// signalAll sends a signal to every process of a tree but those in spare, which are pids in the tree's own pid namespace.
func signalAll(t engine.Tree, sig unix.Signal, spare []int) error {
	for _, pid := range proc.OfTree(t) {
		if slices.Contains(spare, proc.InnerPid(pid)) {
			continue
		}
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("send %s to pid %d: %w", unix.SignalName(sig), pid, err)
		}
	}
	return nil
}
