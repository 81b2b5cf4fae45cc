package engine_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A patient is this binary as a process whose threads notice whatever a tracker does to them: a system call that comes back too early,
// or with EINTR although no handler ran; registers that are not as they were; a signal that is lost.
const patientEnv = "DROVER_ENGINETEST_PATIENT" // which one

// patients are what the main thread does again and again; an error is something that must not happen.
var patients = map[string]func() error{
	"sleeps": func() error {
		return lasts(func() error { return unix.Nanosleep(&unix.Timespec{Nsec: pause.Nanoseconds()}, nil) })
	},
	"polls": func() error {
		return lasts(func() error { _, err := unix.Poll(nil, int(pause.Milliseconds())); return err })
	},
	"waits for a futex": func() error {
		var word uint32
		limit := unix.Timespec{Nsec: pause.Nanoseconds()}
		return lasts(func() error {
			_, _, e := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), 0, 0, uintptr(unsafe.Pointer(&limit)), 0, 0)
			return unless(e, unix.ETIMEDOUT)
		})
	},
	"waits for epoll": func() error {
		return lasts(func() error {
			_, err := unix.EpollWait(epoll, make([]unix.EpollEvent, 1), int(pause.Milliseconds()))
			return err
		})
	},
	"waits for a signal": func() error {
		set, limit := uint64(1)<<(unix.SIGUSR1-1), unix.Timespec{Nsec: pause.Nanoseconds()}
		return lasts(func() error {
			_, _, e := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), 0, uintptr(unsafe.Pointer(&limit)), 8, 0, 0)
			return unless(e, unix.EAGAIN)
		})
	},
	"reads": func() error {
		b := make([]byte, 8)
		if n, err := unix.Read(trickle, b); err != nil || n == 0 {
			return fmt.Errorf("read %d bytes: %w", n, err)
		}
		return nil
	},
	"counts": func() error {
		x, y := uint64(1), 1.0
		for i := range 2_000_000 {
			x = x*6364136223846793005 + 1442695040888963407
			y += float64(i&7) * 0.5
		}
		if x != counted || y != 3_500_001 {
			return fmt.Errorf("counted %d and %g", x, y)
		}
		return nil
	},
	"has a timer": func() error {
		if n := <-alarms; n == nil {
			return errors.New("no signal")
		}
		return nil
	},
}

const pause = 30 * time.Millisecond

// What the patients use.
var (
	epoll   int
	trickle int // a pipe into which something falls now and then
	alarms  = make(chan os.Signal, 1)
	counted = func() (x uint64) {
		x = 1
		for range 2_000_000 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		return x
	}()
)

// lasts checks that a call neither fails nor ends before its time.
func lasts(f func() error) error {
	begin := time.Now()
	if err := f(); err != nil {
		return err
	}
	if took := time.Since(begin); took < pause {
		return fmt.Errorf("it took %s", took)
	}
	return nil
}

// unless is an error but for the one that is expected.
func unless(e, expected unix.Errno) error {
	if e != expected {
		return e
	}
	return nil
}

// patientMask are the signals that the main thread blocks.
const patientMask = 1 << (unix.SIGTERM - 1)

// patient is the life of one; it ends with SIGTERM and says what it has seen.
func patient(what string) {
	runtime.LockOSThread() // the main thread: the one that is looked for first
	var turns, faults atomic.Uint64
	end := make(chan os.Signal, 1)
	signal.Notify(end, unix.SIGTERM)
	say := func() { fmt.Printf("{\"turns\":%d,\"faults\":%d}\n", turns.Load(), faults.Load()) }
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		for {
			select {
			case <-end:
				say()
				os.Exit(0)
			case <-tick.C:
				say()
			}
		}
	}()
	mask := unix.Sigset_t{Val: [16]uint64{patientMask}} // what ends it interrupts another thread
	err := unix.PthreadSigmask(unix.SIG_BLOCK, &mask, nil)
	if err == nil {
		err = afflict(what)
	}
	if err != nil {
		fmt.Println(what, err)
		os.Exit(1)
	}
	act := patients[what]
	if act == nil {
		act = patients["sleeps"]
	}
	for {
		if err := act(); err != nil {
			faults.Add(1)
			fmt.Println(what, err)
		}
		turns.Add(1)
	}
}

// afflict gives a patient its peculiarity, and all what they use.
func afflict(what string) (err error) {
	if epoll, err = unix.EpollCreate1(0); err != nil {
		return err
	}
	var ends [2]int
	if err := unix.Pipe(ends[:]); err != nil {
		return err
	}
	trickle = ends[0]
	go func() {
		for range time.Tick(pause) {
			_, _ = unix.Write(ends[1], []byte("drop"))
		}
	}()
	switch what {
	case "has a timer":
		signal.Notify(alarms, unix.SIGALRM)
		_, err = unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{Interval: unix.Timeval{Usec: 300}, Value: unix.Timeval{Usec: 300}})
		return err
	case "has a seccomp filter":
		return forbidUserfaultfd()
	case "is nobody":
		return unix.Setresuid(65534, 65534, 65534)
	case "has no descriptor left":
		return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 3})
	case "reads past the page cache":
		_, err = unix.Open("/usr/local/bin/enginetest", unix.O_RDONLY|unix.O_DIRECT, 0)
		return err
	case "runs program after program":
		time.AfterFunc(pause, func() { _ = unix.Exec("/proc/self/exe", os.Args, os.Environ()) })
	case "takes a descriptor that appears":
		return takeDescriptor()
	case "has a child with its userfaultfd":
		return leakUserfaultfd()
	}
	return nil
}

// lostIt is what a patient says whose own file was closed by somebody else.
const lostIt = "its own file was closed"

// takeDescriptor has another thread put a file of its own at the lowest number that is free as soon as something appears there, and close it a
// millisecond later.
func takeDescriptor() error {
	file, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	lowest, err := unix.Dup(file)
	if err != nil {
		return err
	}
	if err := unix.Close(lowest); err != nil {
		return err
	}
	go func() {
		runtime.LockOSThread()
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20) // it is to be there when it happens
		for {
			if _, err := unix.FcntlInt(uintptr(lowest), unix.F_GETFD, 0); err != nil {
				continue
			}
			for err := error(unix.EBUSY); errors.Is(err, unix.EBUSY); { // the kernel is just handing the number out
				err = unix.Dup2(file, lowest)
			}
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
			if err := unix.Close(lowest); err != nil {
				fmt.Println(lostIt)
			}
		}
	}()
	return nil
}

// forbidUserfaultfd makes a call of userfaultfd(2) the end of this process.
func forbidUserfaultfd() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_USERFAULTFD},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x80000000}, // SECCOMP_RET_KILL_PROCESS
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}, // SECCOMP_RET_ALLOW
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, 1, 1, uintptr(unsafe.Pointer(&prog))); e != 0 { // SECCOMP_SET_MODE_FILTER, of all threads
		return e
	}
	return nil
}

// leakedFd is the descriptor under which the child has it.
const leakedFd = 3

func leakUserfaultfd() error {
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1, 0, 0)
	if e != 0 {
		return e
	}
	child := exec.Command("sleep", "1000")
	child.ExtraFiles = []*os.File{os.NewFile(fd, "userfaultfd")}
	return child.Start()
}

// seizeAsDebugger has the calling goroutine's thread, to which it is bound, trace every thread of a process.
func seizeAsDebugger(pid int) error {
	const seize = 0x4206
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if _, _, e := unix.Syscall6(unix.SYS_PTRACE, seize, uintptr(tid), 0, 0, 0, 0); e != 0 {
			return e
		}
	}
	return err
}
