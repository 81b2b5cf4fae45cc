package inject

import "errors"

// What injection fails with; all may be wrapped. The process is as it was before, but perhaps after ErrEnded.
var (
	ErrMachine = errors.New("system calls cannot be made in other processes on this machine: only x86-64 is supported")
	ErrForeign = errors.New("its program is not of this machine's word size")
	ErrSeccomp = errors.New("it has a seccomp filter and this process may not suspend it (CAP_SYS_ADMIN)")
	ErrTrapped = errors.New("it has its system calls dispatched to itself (PR_SET_SYSCALL_USER_DISPATCH)")
	ErrStuck   = errors.New("no thread of it comes to a stop")
	ErrEntry   = errors.New("there is no system call instruction in its code")
	ErrTaken   = errors.New("another thread of it has put something else in the userfaultfd's place, or closed it")
	ErrEnded   = errors.New("it has ended, or hangs, in the middle of its work")
)
