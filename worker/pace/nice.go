package pace

import (
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// MostNice is the lowest priority there is: setpriority(2).
const MostNice = 19

// started is the nice value that this process was started with.
var started = niceOf(0)

// threads guards the priority of this process's threads: there is one process.
var threads sync.Mutex

// Nice gives all threads of this process a lower priority while somebody copies and nobody is in a hurry. It may be used by several goroutines.
type Nice struct {
	value int

	mu      sync.Mutex
	copies  int
	hurries int
	low     bool
}

// NewNice is for a nice value up to MostNice; nil, which changes nothing, unless it is above the one that the process was started with.
// errs.Forbidden if the process may not go back to that.
func NewNice(value int) (*Nice, error) {
	if value <= started {
		return nil, nil //nolint:nilnil // nothing is to be changed
	}
	// On a thread of its own, which ends with the goroutine, as it cannot be made as it was if that is what is refused.
	refused := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Setpriority(unix.PRIO_PROCESS, 0, value)
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, 0, started)
		}
		refused <- err
	}()
	if err := <-refused; err != nil {
		return nil, errs.New(errs.Forbidden, "this process may not change its priority to %d and back: %w", value, err).
			WithNext("give it CAP_SYS_NICE, or leave its priority as it is")
	}
	return &Nice{value: value}, nil
}

// Copy says that a tree is copied while it runs. end may be called again.
func (n *Nice) Copy() (end func()) {
	return n.count(func(n *Nice) *int { return &n.copies })
}

// Hurry says that a tree stands still and waits for this process. end may be called again.
func (n *Nice) Hurry() (end func()) {
	return n.count(func(n *Nice) *int { return &n.hurries })
}

func (n *Nice) count(what func(*Nice) *int) (end func()) {
	if n == nil {
		return func() {}
	}
	n.change(func() { *what(n)++ })
	return sync.OnceFunc(func() { n.change(func() { *what(n)-- }) })
}

func (n *Nice) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	low := n.copies > 0 && n.hurries == 0
	if low == n.low {
		return
	}
	value := started
	if low {
		value = n.value
	}
	renice(value)
	n.low = low
}

// renice gives every thread of this process that nice value. A thread has that of the one that made it: what was made while the first pass went
// on, by a thread that it had not come to, the second finds.
func renice(value int) {
	threads.Lock()
	defer threads.Unlock()
	for range 2 {
		all, _ := os.ReadDir("/proc/self/task")
		for _, t := range all {
			if id, err := strconv.Atoi(t.Name()); err == nil {
				_ = unix.Setpriority(unix.PRIO_PROCESS, id, value) // it may have ended
			}
		}
	}
}

// Normally calls start, which starts another process, with the priority that this one was started with: the other would keep it for good.
func Normally(start func() error) error {
	threads.Lock()
	defer threads.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if now := niceOf(0); now != started {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, started); err != nil {
			return errs.New(errs.Forbidden, "start a process with normal priority: %w", err)
		}
		defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, now) }()
	}
	return start()
}

// niceOf is a thread's nice value; 0 is the caller's own.
func niceOf(thread int) int {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, thread) // the system call's own answer is 20 - nice
	if err != nil {
		return 0
	}
	return 20 - raw
}
