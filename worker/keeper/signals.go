package keeper

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's struct, not the C library's.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// defaultSignals gives the command the dispositions and the mask of a fresh login: what a worker started under nohup ignores
// is not ignored by its trees. Handlers go by themselves in exec; ignored signals and the mask would stay.
func defaultSignals() error {
	for sig := uintptr(1); sig <= 64; sig++ {
		var old sigaction
		if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0); e != 0 {
			continue // SIGKILL and SIGSTOP have none
		}
		const ignored = 1
		if old.handler != ignored {
			continue
		}
		var def sigaction
		if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&def)), 0, 8, 0, 0); e != 0 {
			return fmt.Errorf("reset signal %d: %w", sig, e)
		}
	}
	var none unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil); err != nil {
		return fmt.Errorf("reset the signal mask: %w", err)
	}
	return nil
}
