package inject

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// include/uapi/linux/ptrace.h
const (
	ptraceGetSigMask      = 0x420a
	ptraceSetSigMask      = 0x420b
	ptraceGetRseq         = 0x420f
	ptraceGetUserDispatch = 0x4211
	ptraceSuspendSeccomp  = 1 << 21
	eventStop             = 128 // PTRACE_EVENT_STOP, in the third byte of a wait status
	syscallStop           = unix.SIGTRAP | 0x80
	sigSetSize            = 8
)

// How long to wait for a thread. A busy machine or a tight cpu.max makes any of these long, and only the first may be given up.
const (
	stopWithin = time.Second     // until a thread comes to its first stop; one in an uninterruptible sleep does not
	callWithin = 5 * time.Second // until it is about to make a call; while its cgroup is frozen it does not
	stepWithin = time.Minute     // for each step after that, until the thread is as it was
)

// thread is a thread of another process, traced by the calling operating system thread, which makes all calls for it.
type thread struct {
	tid   int
	entry uint64 // address of a system call instruction there
	saved registers
	mask  uint64 // signals blocked
	away  bool   // it is not in the stop any more in which saved was read
	runs  bool   // it has been resumed and its next stop not seen
}

// withThread stops a thread, runs f and lets it go on as it was. It does so on an operating system thread that ends with it, so
// that whatever goes wrong, the kernel detaches.
func withThread(tid, pidfd int, entry uint64, f func(*thread) error, stopped *time.Duration) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread() // the main thread cannot end
			done <- withThread(tid, pidfd, entry, f, stopped)
			return
		}
		done <- traced(&thread{tid: tid, entry: entry}, pidfd, f, stopped)
	}()
	return <-done
}

func traced(t *thread, pidfd int, f func(*thread) error, stopped *time.Duration) error {
	if err := t.seize(); err != nil {
		return err
	}
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		return fmt.Errorf("%w: pid %d ended", unix.ESRCH, t.tid) // and the number may be another's: ending this thread detaches
	}
	if err := t.stop(stopWithin); err != nil {
		return err
	}
	since := time.Now()
	defer func() { *stopped = time.Since(since) }()
	err := t.prepare()
	if err == nil {
		err = f(t)
	}
	return errors.Join(err, t.release())
}

// seize attaches without stopping.
func (t *thread) seize() error {
	err := ptrace(unix.PTRACE_SEIZE, t.tid, 0, unix.PTRACE_O_TRACESYSGOOD|ptraceSuspendSeccomp)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) { // to suspend filters takes CAP_SYS_ADMIN and a kernel with CRIU's options
		if statusNumber(t.tid, "Seccomp:") != 0 {
			return fmt.Errorf("trace thread %d: %w", t.tid, ErrSeccomp)
		}
		err = ptrace(unix.PTRACE_SEIZE, t.tid, 0, unix.PTRACE_O_TRACESYSGOOD)
	}
	if err != nil {
		if by := statusNumber(t.tid, "TracerPid:"); by != 0 {
			return fmt.Errorf("trace thread %d, which pid %d traces: %w", t.tid, by, err)
		}
		return fmt.Errorf("trace thread %d: %w", t.tid, err)
	}
	return nil
}

// stop brings the thread to a stop in which the kernel is about to look for signals. Those that come first are let through.
func (t *thread) stop(within time.Duration) error {
	if err := unix.PtraceInterrupt(t.tid); err != nil {
		return fmt.Errorf("interrupt thread %d: %w", t.tid, err)
	}
	for {
		ws, err := t.wait(within)
		if err != nil {
			return err
		}
		if int(ws)>>16 == eventStop {
			return nil
		}
		if err := unix.PtraceCont(t.tid, signalOf(ws)); err != nil {
			return fmt.Errorf("pass a signal on to thread %d: %w", t.tid, err)
		}
	}
}

// signalOf is the signal that a thread has stopped for and that it must be given, 0 for the stops that ptrace makes.
func signalOf(ws unix.WaitStatus) int {
	if int(ws)>>16 == eventStop || ws.StopSignal() == syscallStop {
		return 0
	}
	return int(ws.StopSignal())
}

// prepare reads what release will put back, and makes sure that no signal comes between.
func (t *thread) prepare() error {
	if err := t.saved.read(t.tid); err != nil {
		return fmt.Errorf("read registers of thread %d: %w", t.tid, err)
	}
	if !t.saved.native() {
		return fmt.Errorf("thread %d: %w", t.tid, ErrForeign)
	}
	if t.dispatches() {
		return fmt.Errorf("thread %d: %w", t.tid, ErrTrapped)
	}
	// The instruction was looked for before the thread stopped. If its process has begun another program meanwhile, it is elsewhere, and
	// the thread would die of what is there now. From here on the program stays: who begins another ends this thread first.
	if !t.atEntry() {
		return fmt.Errorf("thread %d runs another program than a moment ago: %w", t.tid, unix.ESRCH)
	}
	for try := 0; t.inSequence(); try++ { // it is some instructions long; the kernel restarts one that was interrupted
		if try == 100 {
			return fmt.Errorf("thread %d is always in a restartable sequence: %w", t.tid, ErrStuck)
		}
		if err := unix.PtraceCont(t.tid, 0); err != nil {
			return err
		}
		if err := t.stop(stopWithin); err != nil {
			return err
		}
		if err := t.saved.read(t.tid); err != nil {
			return err
		}
	}
	if err := ptrace(ptraceGetSigMask, t.tid, sigSetSize, uintptr(unsafe.Pointer(&t.mask))); err != nil {
		return fmt.Errorf("read the signal mask of thread %d: %w", t.tid, err)
	}
	all := ^uint64(0)
	t.away = true
	if err := ptrace(ptraceSetSigMask, t.tid, sigSetSize, uintptr(unsafe.Pointer(&all))); err != nil {
		return fmt.Errorf("block the signals of thread %d: %w", t.tid, err)
	}
	return nil
}

// call makes a system call in the thread and returns its result, or the error it returned as a unix.Errno.
func (t *thread) call(nr uint64, args ...uint64) (int64, error) {
	return t.callIf(func() error { return nil }, nr, args...)
}

// callIf is call, unless sure, which is asked when the thread is about to make it, is against it: its error is then the call's.
func (t *thread) callIf(sure func() error, nr uint64, args ...uint64) (int64, error) {
	var not error
	r := t.saved
	r.enter(t.entry, nr, args)
	if err := r.write(t.tid); err != nil {
		return 0, err
	}
	for i, within := range []time.Duration{callWithin, stepWithin} { // into the call and out of it
		if i > 0 {
			if not = sure(); not != nil {
				if err := t.leaveOut(); err != nil {
					return 0, errors.Join(not, err)
				}
			}
		}
		if err := unix.PtraceSyscall(t.tid, 0); err != nil {
			return 0, err
		}
		for {
			t.runs = true
			ws, err := t.wait(within)
			if err != nil {
				return 0, err
			}
			t.runs = false
			if ws.StopSignal() == syscallStop {
				break
			}
			if err := unix.PtraceSyscall(t.tid, signalOf(ws)); err != nil { // SIGSTOP came, which no mask holds back, or SIGCONT
				return 0, err
			}
		}
	}
	if not != nil {
		return 0, not
	}
	if err := r.read(t.tid); err != nil {
		return 0, err
	}
	result := r.result()
	if result < 0 && result > -4096 {
		return 0, unix.Errno(-result)
	}
	return result, nil
}

// release puts everything back and detaches. The registers are written in a stop of the same kind as that in which they were
// read, so that the kernel itself restarts a system call that was interrupted, or does not because a signal came.
func (t *thread) release() error {
	if !t.away {
		return t.detach()
	}
	if err := t.stopAgain(); err != nil {
		return err
	}
	back := t.saved
	back.restart()
	err := back.write(t.tid)
	if e := ptrace(ptraceSetSigMask, t.tid, sigSetSize, uintptr(unsafe.Pointer(&t.mask))); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("put back the registers of thread %d: %w", t.tid, err)
	}
	return t.detach()
}

// stopAgain brings the thread from wherever it is to a stop like the first.
func (t *thread) stopAgain() error {
	if err := unix.PtraceInterrupt(t.tid); err != nil {
		return fmt.Errorf("interrupt thread %d: %w", t.tid, err)
	}
	for signal := 0; ; {
		if !t.runs {
			if err := unix.PtraceCont(t.tid, signal); err != nil { // it meets the interrupt before its next instruction
				return fmt.Errorf("lead thread %d out of a call: %w", t.tid, err)
			}
		}
		ws, err := t.wait(stepWithin)
		if err != nil {
			return err
		}
		t.runs, signal = false, signalOf(ws)
		if int(ws)>>16 == eventStop {
			return nil
		}
		if ws.StopSignal() == syscallStop { // a call that was given up and is now about to be made
			if err := t.leaveOut(); err != nil {
				return err
			}
		}
	}
}

// leaveOut keeps the thread from the call that it is about to make.
func (t *thread) leaveOut() error {
	not := t.saved
	not.skip()
	if err := not.write(t.tid); err != nil {
		return fmt.Errorf("keep thread %d from a call: %w", t.tid, err)
	}
	return nil
}

func (t *thread) detach() error {
	if err := unix.PtraceDetach(t.tid); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("let go of thread %d: %w", t.tid, err)
	}
	return nil
}

// wait returns the thread's next stop. There is no call that waits for one with a deadline, hence the looking.
func (t *thread) wait(within time.Duration) (unix.WaitStatus, error) {
	const eager = 2000 // looks in a row: a thread that runs is there within microseconds
	deadline := time.Now().Add(within)
	for i := 0; ; i++ {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(t.tid, &ws, unix.WALL|unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return ws, fmt.Errorf("wait for thread %d: %w", t.tid, err)
		case pid == t.tid && !ws.Stopped():
			return ws, fmt.Errorf("thread %d ended: %w", t.tid, unix.ESRCH)
		case pid == t.tid:
			return ws, nil
		case i < eager:
		case time.Now().After(deadline):
			return ws, fmt.Errorf("thread %d has not stopped within %s: %w", t.tid, within, ErrStuck)
		default:
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 50_000}, nil)
		}
	}
}

// inSequence says whether the thread is inside a restartable sequence (rseq(2)): moved elsewhere and back, it would go on with what
// another thread may have changed meanwhile.
func (t *thread) inSequence() bool {
	var conf struct {
		Pointer         uint64
		Size, Signature uint32
		Flags, _        uint32
	}
	if err := ptrace(ptraceGetRseq, t.tid, unsafe.Sizeof(conf), uintptr(unsafe.Pointer(&conf))); err != nil || conf.Pointer == 0 {
		return false
	}
	var cs uint64 // struct rseq: cpu_id_start, cpu_id, rseq_cs
	if !t.peek(conf.Pointer+8, &cs) || cs == 0 {
		return false
	}
	var start, length uint64 // struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip
	return t.peek(cs+8, &start) && t.peek(cs+16, &length) && t.saved.at()-start < length
}

// atEntry says whether there is a system call instruction at entry.
func (t *thread) atEntry() bool {
	var word uint64
	return t.peek(t.entry, &word) && indexEntry(binary.LittleEndian.AppendUint64(nil, word)) == 0
}

func (t *thread) peek(addr uint64, v *uint64) bool {
	return ptrace(unix.PTRACE_PEEKDATA, t.tid, uintptr(addr), uintptr(unsafe.Pointer(v))) == nil
}

// dispatches says whether system calls of the thread end in a signal handler of its own.
func (t *thread) dispatches() bool {
	var conf struct{ Mode, Selector, Offset, Len uint64 }
	return ptrace(ptraceGetUserDispatch, t.tid, unsafe.Sizeof(conf), uintptr(unsafe.Pointer(&conf))) == nil && conf.Mode != 0
}

func ptrace(request, tid int, addr, data uintptr) error {
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); e != 0 {
		return e
	}
	return nil
}

// statusNumber is a number in /proc/PID/status, 0 if it is not there.
func statusNumber(tid int, key string) uint64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}
