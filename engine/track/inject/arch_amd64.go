package inject

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"
)

// Supported says whether this package works on this machine.
const Supported = true

// entryCode is the instruction `syscall`.
var entryCode = []byte{0x0f, 0x05}

// longMode is the code segment of 64-bit programs on Linux.
const longMode = 0x33

// registers are a thread's general ones.
type registers struct{ unix.PtraceRegs }

func (r *registers) read(tid int) error { return unix.PtraceGetRegs(tid, &r.PtraceRegs) }

func (r *registers) write(tid int) error { return unix.PtraceSetRegs(tid, &r.PtraceRegs) }

// native says whether the thread runs 64-bit code.
func (r *registers) native() bool { return r.Cs == longMode }

// at is the address of the next instruction.
func (r *registers) at() uint64 { return r.Rip }

// enter makes the next instruction a system call. That the thread is in none already keeps the kernel from restarting that one.
func (r *registers) enter(entry, nr uint64, args []uint64) {
	r.Rip, r.Rax, r.Orig_rax = entry, nr, ^uint64(0)
	for i, to := range []*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9} {
		if i < len(args) {
			*to = args[i]
		}
	}
}

// skip has the kernel leave out the call that it is about to make.
func (r *registers) skip() { r.Orig_rax = ^uint64(0) }

func (r *registers) result() int64 { return int64(r.Rax) }

// interrupted are calls that fail with EINTR whenever a thread is stopped, without a signal to any handler (signal(7)). All of
// them can be made again.
var interrupted = []uint64{
	unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_IO_GETEVENTS,
	unix.SYS_IO_PGETEVENTS, unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
}

// restart has the kernel restart a call that would fail with EINTR though no handler runs.
func (r *registers) restart() {
	restartNoHandler := int64(-514) // ERESTARTNOHAND: EINTR if a handler runs, otherwise again
	if int64(r.Rax) == -int64(unix.EINTR) && int64(r.Orig_rax) >= 0 && slices.Contains(interrupted, r.Orig_rax) {
		r.Rax = uint64(restartNoHandler)
	}
}

// indexEntry finds a system call instruction in code, -1 if there is none.
func indexEntry(code []byte) int { return bytes.Index(code, entryCode) }
