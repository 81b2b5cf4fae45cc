package main

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/testenv/victims/vital"
)

// fork makes a child that does not begin another program: it has this process's memory, writes to some of it for a while, and ends.
func (l *land) fork() error {
	f := l.fields[l.random.IntN(len(l.fields))]
	if f.prot != rw {
		return nil
	}
	pause := unix.Timespec{Nsec: 1e6}
	pid := forkWriter(f.at, f.len(), uintptr(unsafe.Pointer(&l.shared[0])), 50+uintptr(l.random.IntN(300)), &pause)
	if pid < 0 {
		return fmt.Errorf("fork: %w", unix.Errno(-pid))
	}
	l.kids = append(l.kids, pid)
	atomic.AddUint64(&l.counts.Forks, 1)
	return nil
}

// forkWriter is fork(2). In the child nothing of Go's runtime works: it makes no call but raw ones, and needs no more stack than is there.
//
//go:nosplit
//go:norace
func forkWriter(at, size, shared, turns uintptr, pause *unix.Timespec) int {
	pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 {
		return -int(e)
	}
	if pid != 0 {
		return int(pid)
	}
	for i := uintptr(0); i < turns; i++ {
		to := at + i*vital.PageSize*7%size
		*(*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&to))) = byte(i)
		to = shared + i%64*vital.PageSize
		*(*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&to))) = byte(i)
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(pause)), 0, 0)
	}
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// reap takes children that have ended.
func (l *land) reap() {
	left := l.kids[:0]
	for _, pid := range l.kids {
		var how unix.WaitStatus
		got, err := unix.Wait4(pid, &how, unix.WNOHANG, nil)
		switch {
		case err == nil && got == 0:
			left = append(left, pid)
		case err != nil || how.ExitStatus() != 0:
			l.counts.fault(fmt.Errorf("a forked child ended with %#x: %w", how, err))
		}
	}
	l.kids = left
}
