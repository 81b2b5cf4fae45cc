package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// watcher follows one tree's root from the moment it is known to its end.
type watcher struct {
	dir Dir
	log *slog.Logger

	mu        sync.Mutex
	state     State
	following bool          // this process follows it
	ended     chan struct{} // closed when state.Exited becomes true; a new one for every tree
}

func newWatcher(dir Dir, log *slog.Logger) (*watcher, error) {
	s, err := ReadState(dir)
	if err != nil {
		return nil, err
	}
	w := &watcher{dir: dir, log: log, state: s, ended: make(chan struct{})}
	switch {
	case s.Exited:
		close(w.ended)
	case s.Pid != 0: // an earlier keeper died
		if err := w.watch(s.Pid, s.Birth); err != nil {
			w.end(false, 0, 0)
		}
	}
	return w, nil
}

// State is the tree's state now, and a channel that is closed when the tree has ended.
func (w *watcher) State() (State, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state, w.ended
}

// watch begins to follow a root; birth 0 takes the process as it is. Watching the same one again changes nothing.
func (w *watcher) watch(pid int, birth uint64) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errs.New(errs.NotFound, "process %d cannot be watched: %w", pid, err)
	}
	born, _, err := Birth(pid)
	if err == nil && birth != 0 && birth != born {
		err = errs.New(errs.NotFound, "process %d is not the one it was: its pid has been used again", pid)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.following && w.state.Pid == pid && w.state.Birth == born && !w.state.Exited {
		unix.Close(fd)
		return nil
	}
	w.state, w.following = State{Pid: pid, Birth: born}, true
	w.ended = make(chan struct{})
	if err := writeJSON(w.dir.state(), w.state); err != nil {
		unix.Close(fd)
		return err
	}
	go w.follow(fd, pid, w.ended)
	return nil
}

func (w *watcher) follow(fd, pid int, ended chan struct{}) {
	defer unix.Close(fd)
	awaitEnd(fd)
	known, code, signal := howEnded(fd, pid)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != ended {
		return // another tree is followed by now
	}
	w.end(known, code, signal)
}

// end records how the tree ended. The caller holds mu, or nobody else knows w yet.
func (w *watcher) end(known bool, code, signal int) {
	w.state.Exited, w.state.Known, w.state.Code, w.state.Signal, w.state.At = true, known, code, signal, time.Now().UTC()
	if err := writeJSON(w.dir.state(), w.state); err != nil {
		w.log.Error("the tree's end could not be recorded", "error", err)
	}
	w.log.Info("the tree's root has ended", "pid", w.state.Pid, "known", known, "code", code, "signal", signal)
	close(w.ended)
}

// awaitEnd returns when the process of a pidfd has ended, reaped or not.
func awaitEnd(fd int) {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, -1); n > 0 || (err != nil && err != unix.EINTR) {
			return
		}
	}
}

// reapTime is how long the keeper waits to learn how its tree ended: between the root's death and its adoption by the keeper
// there may be a CRIU that has not exited yet, or a parent that takes its time to reap.
const reapTime = 5 * time.Second

// howEnded reaps the root if it is the keeper's child, else asks the kernel (6.15 and later remember an exit code as long as
// a pidfd is open).
func howEnded(fd, pid int) (known bool, code, signal int) {
	for end := time.Now().Add(reapTime); time.Now().Before(end); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // no event says that another has reaped it
		var ws unix.WaitStatus
		got, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil)
		if err == nil && got == pid {
			return true, exitCode(ws), termSignal(ws)
		}
		if !errors.Is(err, unix.ECHILD) {
			continue
		}
		if ws, ok := pidfdExit(fd); ok {
			return true, exitCode(ws), termSignal(ws)
		}
		if _, _, err := Birth(pid); err != nil {
			return false, 0, 0
		}
	}
	return false, 0, 0
}

func exitCode(ws unix.WaitStatus) int {
	if ws.Exited() {
		return ws.ExitStatus()
	}
	return 0
}

func termSignal(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return int(ws.Signal())
	}
	return 0
}

// pidfdExit asks for the wait status of a process that has been reaped (linux/pidfd.h, PIDFD_GET_INFO).
func pidfdExit(fd int) (unix.WaitStatus, bool) {
	var info struct {
		mask, cgroup uint64
		ids          [11]uint32
		exit         int32
	}
	const exitBit = 1 << 3
	info.mask = exitBit
	const getInfo = 3<<30 | 64<<16 | 0xff<<8 | 11 // _IOWR(0xFF, 11, struct pidfd_info), whose first version has 64 bytes
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getInfo, uintptr(unsafe.Pointer(&info)))
	return unix.WaitStatus(info.exit), e == 0 && info.mask&exitBit != 0
}

func (s State) String() string {
	switch {
	case s.Pid == 0:
		return "no tree"
	case !s.Exited:
		return fmt.Sprintf("pid %d runs", s.Pid)
	case !s.Known:
		return fmt.Sprintf("pid %d ended, nobody saw how", s.Pid)
	}
	return fmt.Sprintf("pid %d ended with code %d, signal %d", s.Pid, s.Code, s.Signal)
}
