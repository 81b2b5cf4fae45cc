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

// userfaultfd makes one in a process and takes it out; the descriptor, -1 on an error, is the caller's.
func userfaultfd(ctx context.Context, pid, pidfd int, a *answer) (fd int, err error) {
	fd = -1
	err = inThread(ctx, pid, pidfd, func(t *thread) error {
		n, err := t.call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|userModeOnly)
		if err != nil {
			return fmt.Errorf("userfaultfd in pid %d: %w", pid, err)
		}
		a.Number = int(n)
		got, err := take(pidfd, int(n))
		if err != nil {
			err = fmt.Errorf("take descriptor %d out of pid %d: %w", n, pid, err)
		} else {
			fd = got
		}
		if closing := t.closeOwn(int(n), got); closing != nil {
			err = errors.Join(err, fmt.Errorf("close descriptor %d in pid %d: %w", n, pid, closing))
		}
		return err
	}, &a.Stopped)
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, err
}

// take is a copy of a process's userfaultfd, the caller's; -1 on an error. The process's other threads run: they may put a file of theirs at the number
// at any time, of which nothing may be touched.
func take(pidfd, number int) (fd int, err error) {
	if fd, err = unix.PidfdGetfd(pidfd, number, 0); err != nil {
		return -1, err
	}
	if err := at("self", fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// closeOwn closes a userfaultfd that the thread has at number, of which copy is one, -1 if there is none; never anything else. It looks
// when the thread is already about to make the call: another thread then has some microseconds left in which to put a file in its place.
func (t *thread) closeOwn(number, copied int) error {
	_, err := t.callIf(func() error {
		if err := at(strconv.Itoa(t.tid), number); err != nil || copied < 0 {
			return err
		}
		return same(t.tid, number, copied)
	}, unix.SYS_CLOSE, uint64(number))
	if errors.Is(err, unix.EBADF) {
		err = errors.Join(ErrTaken, err)
	}
	return err
}

// closeIn closes a userfaultfd of a process.
func closeIn(ctx context.Context, pid, pidfd, number int, a *answer) error {
	err := inThread(ctx, pid, pidfd, func(t *thread) error { return t.closeOwn(number, -1) }, &a.Stopped)
	if err != nil {
		return fmt.Errorf("close descriptor %d that pid %d inherited: %w", number, pid, err)
	}
	return nil
}

// inThread runs f with a stopped thread of the process, and lets the thread go on.
func inThread(ctx context.Context, pid, pidfd int, f func(*thread) error, stopped *time.Duration) error {
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
