package transfer

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// yielding is how much nicer than the rest of the worker those threads are that hash and pack while the tree runs: about a
// quarter of its share where both want a processor.
const yielding = 6

// thread is an operating system's thread that one goroutine keeps to itself; it ends with it.
type thread struct {
	id, base int
	yields   bool
}

// ownThread gives the calling goroutine a thread of its own.
func ownThread() *thread {
	runtime.LockOSThread() // and never unlocked: a thread that yields must not carry anything else
	t := &thread{id: unix.Gettid()}
	if raw, err := unix.Getpriority(unix.PRIO_PROCESS, t.id); err == nil {
		t.base = 20 - raw // as the system call has it
	}
	return t
}

// yield lets the tree run first, or no longer. Where that may not be set (undoing it takes CAP_SYS_NICE) it stays as it is:
// copying is then slower or the tree is, and nothing is wrong.
func (t *thread) yield(yes bool) {
	if yes == t.yields {
		return
	}
	nice := t.base
	if yes {
		nice += yielding
	}
	if unix.Setpriority(unix.PRIO_PROCESS, t.id, nice) == nil {
		t.yields = yes
	}
}
