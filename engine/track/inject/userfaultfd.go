package inject

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// userModeOnly is UFFD_USER_MODE_ONLY: the descriptor never delivers faults of the kernel's own accesses. Asynchronous write
// protection delivers none at all, and with the flag a process without privileges may make one.
const userModeOnly = 1

// mostThreads is how many threads are tried, one after the other, if they do not come to a stop.
const mostThreads = 4

// Uffd is a userfaultfd of another process's memory.
type Uffd struct {
	FD      int           // in this process, close-on-exec; the owner closes it, which ends all that it watches
	Number  int           // what it was in the process, for Stray
	Stopped time.Duration // how long a thread of the process stood still for it
}

// Userfaultfd makes a userfaultfd in the process that pidfd is open for, whose pid is pid. It is neither enabled (UFFDIO_API) nor
// registered for anything. It needs the right to trace the process. It blocks for as long as a thread takes to come to a stop,
// usually microseconds; ctx is looked at between threads only. A process that is gone is unix.ESRCH.
//
// Another thread of the process may fork in the microseconds in which the descriptor exists there, and the child then has a copy:
// see Stray.
func Userfaultfd(ctx context.Context, pid, pidfd int) (Uffd, error) {
	u := Uffd{FD: -1}
	if !Supported {
		return u, ErrMachine
	}
	err := inThread(ctx, pid, pidfd, func(t *thread) error {
		n, err := t.call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|userModeOnly)
		if err != nil {
			return fmt.Errorf("userfaultfd in pid %d: %w", pid, err)
		}
		u.Number = int(n)
		fd, err := unix.PidfdGetfd(pidfd, int(n), 0)
		if err == nil {
			u.FD = fd
		} else {
			err = fmt.Errorf("take descriptor %d out of pid %d: %w", n, pid, err)
		}
		if _, closing := t.call(unix.SYS_CLOSE, uint64(n)); closing != nil {
			err = errors.Join(err, fmt.Errorf("close descriptor %d in pid %d: %w", n, pid, closing))
		}
		return err
	}, &u.Stopped)
	if err != nil && u.FD >= 0 {
		unix.Close(u.FD)
		u.FD = -1
	}
	return u, err
}

// inThread runs f with a stopped thread of the process, and lets the thread go on.
func inThread(ctx context.Context, pid, pidfd int, f func(*thread) error, stopped *time.Duration) error {
	if own(pid) {
		return ErrOwn
	}
	entry, err := findEntry(pid)
	if err != nil {
		return fmt.Errorf("look for a system call instruction in pid %d: %w", pid, err)
	}
	threads, err := threadsOf(pid)
	if err != nil {
		return err
	}
	for _, tid := range threads[:min(len(threads), mostThreads)] {
		if err := ctx.Err(); err != nil {
			return err
		}
		err = withThread(tid, pidfd, entry, f, stopped)
		if !errors.Is(err, ErrStuck) && !errors.Is(err, unix.ESRCH) { // others may stop, and still be there
			return err
		}
	}
	return fmt.Errorf("stop a thread of pid %d: %w", pid, err)
}

// own says whether pid is this process or a child of it. A ptrace stop is reported to every wait of the tracer's process for
// that pid, also to those that only ask for its end.
func own(pid int) bool {
	if pid == os.Getpid() {
		return true
	}
	return statusNumber(pid, "PPid:") == uint64(os.Getpid())
}

// threadsOf lists the threads, the leader first.
func threadsOf(pid int) (tids []int, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("list threads: %w", errors.Join(err, unix.ESRCH))
	}
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, nil
}
