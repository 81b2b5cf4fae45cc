package criu

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// standIn answers one kind of system call of a CRIU in the kernel's place: PAGEMAP_SCAN, by which it asks what pages a process has
// (seccomp user notification, Linux 5.5). CRIU stands still for each answer. A stand-in that is closed before CRIU has asked its last
// fails the call, and so the dump.
type standIn struct {
	// answer is called from one goroutine. It returns how many regions it has written to where CRIU wants them; not ok lets the
	// kernel answer.
	answer func(scanCall) (regions int, ok bool)

	listener *os.File
	pid      int
}

// scanCall is a PAGEMAP_SCAN that waits for its answer.
type scanCall struct {
	memory   *os.File // CRIU's
	argument int64    // where its struct pm_scan_arg is
	pagemap  *os.File // what it scans, as CRIU has it open
}

// Layouts of include/uapi/linux/seccomp.h.
type (
	seccompNotif struct {
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	seccompResp struct {
		id    uint64
		value int64
		err   int32
		flags uint32
	}
)

const (
	seccompContinue = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
	seccompIsValid  = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID
	pagemapScan     = 0xc0606610 // PAGEMAP_SCAN (include/uapi/linux/fs.h)
)

// auditArch is how seccomp calls the machines that drover is built for; 0 is none.
var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]

// scanFilter asks for PAGEMAP_SCAN and lets all else pass. Offsets are those of struct seccomp_data on a little-endian machine.
func scanFilter() []unix.SockFilter {
	const load, equal, end = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	return []unix.SockFilter{
		{Code: load, K: 4}, // arch
		{Code: equal, K: auditArch, Jf: 5},
		{Code: load, K: 0}, // nr
		{Code: equal, K: unix.SYS_IOCTL, Jf: 3},
		{Code: load, K: 16 + 8}, // the lower half of args[1], which is all that the kernel takes
		{Code: equal, K: pagemapScan, Jf: 1},
		{Code: end, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: end, K: unix.SECCOMP_RET_ALLOW},
	}
}

// listen puts the filter on the calling thread, for good, and on whatever is started from it.
func listen() (*os.File, error) {
	if auditArch == 0 {
		return nil, errors.New("not made for this machine")
	}
	filter := scanFilter()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return nil, fmt.Errorf("listen to system calls (seccomp): %w", e)
	}
	unix.CloseOnExec(int(fd))
	if err := unix.SetNonblock(int(fd), true); err != nil { // it can then be waited for and closed at once
		unix.Close(int(fd))
		return nil, err
	}
	return os.NewFile(fd, "seccomp"), nil
}

// mayStandIn says why there can be no stand-in on this host, nil if there can. A kernel that has no PAGEMAP_SCAN is not asked by it: CRIU reads
// the pagemaps there, and sees all.
var mayStandIn = sync.OnceValue(func() error {
	if err := mayScan(); err != nil {
		return err
	}
	return onDoomedThread([]func() error{func() error {
		l, err := listen()
		if err != nil {
			return err
		}
		return l.Close()
	}})
})

// prepare has the calling thread's calls answered, and those of what is started from it, once serve is called.
func (s *standIn) prepare() (err error) {
	s.listener, err = listen()
	return err
}

// serve answers the process, which a prepared thread has started, until the stand-in is closed or nobody is left who could call.
func (s *standIn) serve(pid int) {
	s.pid = pid
	go s.work()
}

// Close lets no call wait any longer. It may be called again.
func (s *standIn) Close() error {
	if s.listener == nil {
		return nil
	}
	err := s.listener.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (s *standIn) work() {
	raw, err := s.listener.SyscallConn()
	for err == nil {
		var n seccompNotif
		if err = s.next(raw, &n); err != nil {
			return
		}
		resp := seccompResp{id: n.id, flags: seccompContinue}
		if regions, ok := s.call(raw, n); ok {
			resp.value, resp.flags = int64(regions), 0
		}
		err = raw.Control(func(fd uintptr) { // a caller that has been killed does not hear it
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&resp)))
		})
	}
}

var errNoCaller = errors.New("nobody is left who could call")

// next waits for a call.
func (s *standIn) next(raw rawReader, n *seccompNotif) error {
	var failed error
	err := raw.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, failed = unix.Poll(ready, 0); failed != nil {
			return !errors.Is(failed, unix.EINTR)
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			if ready[0].Revents != 0 {
				failed = errNoCaller
			}
			return failed != nil
		}
		*n = seccompNotif{} // as the kernel wants it
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n))); e != 0 {
			return false // the caller was killed, or a signal came
		}
		return true
	})
	return errors.Join(err, failed)
}

type rawReader interface {
	Read(func(fd uintptr) bool) error
	Control(func(fd uintptr)) error
}

// call opens what a call is about and has it answered.
func (s *standIn) call(raw rawReader, n seccompNotif) (regions int, ok bool) {
	if int(n.pid) != s.pid { // one of CRIU's children
		return 0, false
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", n.pid), os.O_RDWR, 0)
	if err != nil {
		return 0, false
	}
	defer memory.Close()
	pidfd, err := unix.PidfdOpen(int(n.pid), 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, int(n.args[0]), 0)
	if err != nil {
		return 0, false
	}
	pagemap := os.NewFile(uintptr(fd), "pagemap")
	defer pagemap.Close()
	// What still waits has not died meanwhile: the memory is its own, whoever has its number later.
	waits := false
	err = raw.Control(func(fd uintptr) {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, fd, seccompIsValid, uintptr(unsafe.Pointer(&n.id)))
		waits = e == 0
	})
	if err != nil || !waits {
		return 0, false
	}
	return s.answer(scanCall{memory, int64(n.args[2]), pagemap})
}
