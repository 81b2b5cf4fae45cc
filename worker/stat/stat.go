// Package stat reads what the kernel says of a process in one line: /proc/PID/stat (proc_pid_stat(5), fs/proc/array.c).
package stat

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Process is one process, as this host sees it.
type Process struct {
	Pid, Parent, Session int
	Comm                 string // its program's name, cut to 15 bytes; any byte may be in it
	State                string // one letter: R, S, D, T, t, Z, X, …
	TTY                  int    // device number of the controlling terminal, 0 if none
	Threads              int
	RSS                  int64  // bytes
	Birth                uint64 // clock ticks since boot: with the pid it is this process and no other
	Kernel               bool   // a kernel thread
}

// Zombie says that it has ended, and only its parent has not heard of it.
func (p Process) Zombie() bool { return p.State == "Z" || p.State == "X" }

// Read is the process of that pid. The error is the file's (fs.ErrNotExist, or ESRCH in the middle of its end) if there is none.
func Read(pid int) (Process, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, err
	}
	p, ok := Parse(string(b))
	if !ok {
		return Process{}, fmt.Errorf("cannot understand /proc/%d/stat", pid)
	}
	return p, nil
}

// Parse understands such a line. The name stands in parentheses and may hold some itself: the last one ends it.
func Parse(line string) (p Process, ok bool) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return p, false
	}
	f := strings.Fields(line[end+1:]) // from field 3
	if len(f) < 22 {
		return p, false
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(f[field-3], 10, 64)
		return n
	}
	const kernelThread = 0x00200000 // PF_KTHREAD in linux/sched.h
	p = Process{
		Comm: line[open+1 : end], State: f[0], Parent: int(number(4)), Session: int(number(6)), TTY: int(number(7)),
		Kernel: number(9)&kernelThread != 0, Threads: int(number(20)), RSS: number(24) * int64(os.Getpagesize()),
	}
	p.Pid, _ = strconv.Atoi(strings.TrimSpace(line[:open]))
	var err error
	p.Birth, err = strconv.ParseUint(f[22-3], 10, 64)
	return p, p.Pid > 0 && err == nil
}
