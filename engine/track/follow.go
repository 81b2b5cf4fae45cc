package track

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/engine/internal/proc"
	"drover/engine/track/inject"
)

// mostLooks is how often a round looks for processes that came while it began to watch others.
const mostLooks = 5

// follow begins to watch the processes that came since the last round, lets go of those that ended, and returns those that are there.
func (w *wpTracker) follow(ctx context.Context, st *RoundStats) (pids []int, err error) {
	for pid, why := range w.refused {
		if errors.Is(why, inject.ErrStuck) || errors.Is(why, inject.ErrTaken) { // it was busy with something; perhaps it is not any more
			delete(w.refused, pid)
		}
	}
	for range mostLooks {
		pids = proc.OfTree(w.tree)
		came := false
		for _, pid := range pids {
			if w.watched[pid] != nil || w.refused[pid] != nil {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			err := w.attach(ctx, pid, st)
			came = came || err == nil
			if err != nil && ctx.Err() == nil && !gone(err) {
				w.refuse(pid, err)
			}
		}
		if !came {
			break
		}
	}
	for pid := range w.watched {
		if !slices.Contains(pids, pid) {
			w.drop(pid)
		}
	}
	for pid := range w.refused {
		if !slices.Contains(pids, pid) {
			delete(w.refused, pid)
		}
	}
	return pids, nil
}

// attach begins to watch a process. One that has no memory of its own, because it has ended or not yet begun its program
// (vfork), counts as gone.
func (w *wpTracker) attach(ctx context.Context, pid int, st *RoundStats) (err error) {
	if borrows(pid) {
		return unix.ESRCH
	}
	if w.injector == nil {
		if w.injector, err = w.start(); err != nil {
			return err
		}
	}
	defer func() {
		if errors.Is(err, inject.ErrEnded) {
			w.dismiss()
		}
	}()
	one, err := attach(ctx, w.injector, pid, func(pid int) bool { return slices.Contains(proc.OfTree(w.tree), pid) })
	if err != nil {
		return err
	}
	st.Stopped = max(st.Stopped, one.uffd.Stopped)
	for _, other := range w.watched {
		if inject.Stray(pid, other.uffd) {
			if err := w.injector.CloseStray(ctx, pid, one.pidfd, other.uffd); err != nil {
				one.close()
				return err
			}
		}
	}
	w.watched[pid] = one
	return nil
}

// borrows says whether a process runs in its parent's memory, or has none.
func borrows(pid int) bool {
	parent := 0
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	none := true
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "PPid":
			parent, _ = strconv.Atoi(strings.TrimSpace(value))
		case "VmSize": // zombies and threads of the kernel do not have the line
			none = false
		}
	}
	if none || parent == 0 {
		return none
	}
	const kcmpMemory = 1 // KCMP_VM of kcmp(2)
	order, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(parent), kcmpMemory, 0, 0, 0)
	return e == 0 && order == 0
}
