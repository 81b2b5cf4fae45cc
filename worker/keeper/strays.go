package keeper

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/worker/stat"
)

// EndStrays ends what works on the images of a tree although both the tree and its keeper have ended: a CRIU whose keeper was killed in the middle
// of a release waits for ever for tasks that are dead. images are the directories, which every CRIU has open, "" for none. CRIU that another
// keeper drives is let be, should it work in the same directory by now.
func EndStrays(images ...string) (failed error) {
	pids, err := keepersPids()
	if err != nil {
		return errs.New(errs.Unavailable, "look for what still works on %s: %w", images, err)
	}
	for _, dir := range images {
		if dir != "" {
			failed = errors.Join(failed, endHolders(pids, dir))
		}
	}
	return failed
}

// strayTime is how long a killed process may take to end.
const strayTime = 5 * time.Second

// endHolders ends those of the processes that have the directory open and belong to no keeper. One that is not there is open nowhere.
func endHolders(pids []int, dir string) (failed error) {
	want, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	kept := ofKeepers(pids)
	for _, pid := range pids {
		if kept[pid] {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0) // before the look: what is seen is what is killed
		if err != nil {
			continue // it has ended
		}
		if holds(pid, want) {
			failed = errors.Join(failed, end(fd, pid))
		}
		unix.Close(fd)
	}
	return failed
}

// ofKeepers are those of the processes that are keepers with CRIU at work, that CRIU, and what it has forked: a keeper starts CRIU in a session of its own.
func ofKeepers(pids []int) map[int]bool {
	kept := map[int]bool{}
	for _, pid := range pids {
		p, err := stat.Read(pid)
		if err != nil {
			continue // it has ended
		}
		if leader, err := stat.Read(p.Session); err == nil && slices.Contains(pids, leader.Parent) {
			kept[pid], kept[leader.Parent] = true, true
		}
	}
	return kept
}

// holds says whether the process has the file open.
func holds(pid int, want os.FileInfo) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false // it ends
	}
	for _, fd := range fds {
		if is, err := os.Stat(dir + "/" + fd.Name()); err == nil && os.SameFile(is, want) {
			return true
		}
	}
	return false
}

func end(fd, pid int) error {
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	for until := time.Now().Add(strayTime); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(until).Milliseconds()))) // a negative one would be for ever
		switch {
		case n > 0:
			return nil
		case err != unix.EINTR:
			return errs.New(errs.Timeout, "process %d was killed %s ago and has not ended", pid, strayTime)
		}
	}
}
