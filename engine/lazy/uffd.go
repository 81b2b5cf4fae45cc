package lazy

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine/image"
)

// include/uapi/linux/userfaultfd.h
const (
	uffdioAPI      = 0xc018aa3f
	uffdioRegister = 0xc020aa00
	uffdioWake     = 0x8010aa02
	uffdioCopy     = 0xc028aa03
	uffdioZeropage = 0xc020aa04

	apiVersion      = 0xaa
	registerMissing = 1

	eventPagefault = 0x12
	eventFork      = 0x13
	eventRemap     = 0x14
	eventRemove    = 0x15
	eventUnmap     = 0x16

	msgSize = 32

	// those that CRIU asks for (NEED_UFFD_API_FEATURES in criu/uffd.c): fork, remap, remove, unmap
	criuFeatures = 1<<1 | 1<<2 | 1<<3 | 1<<6
)

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// putPages copies data to addr in the process of a userfaultfd and returns how many bytes have got there; fewer than all only
// with the error that stopped it.
func putPages(fd int, addr uint64, data []byte) (done uint64, err error) {
	for done < uint64(len(data)) {
		arg := struct {
			dst    uint64
			src    *byte
			length uint64
			mode   uint64
			copied int64
		}{dst: addr + done, src: &data[done], length: uint64(len(data)) - done}
		err := ioctl(fd, uffdioCopy, unsafe.Pointer(&arg))
		switch {
		case err == nil:
			return uint64(len(data)), nil
		case arg.copied > 0: // EAGAIN, but some way along: the next try says what is in the way
			done += uint64(arg.copied)
		default:
			return done, err
		}
	}
	return done, nil
}

// putZeros is putPages with n bytes of zeros.
func putZeros(fd int, addr, n uint64) (done uint64, err error) {
	for done < n {
		arg := struct {
			start, length, mode uint64
			zeroed              int64
		}{start: addr + done, length: n - done}
		err := ioctl(fd, uffdioZeropage, unsafe.Pointer(&arg))
		switch {
		case err == nil:
			return n, nil
		case arg.zeroed > 0:
			done += uint64(arg.zeroed)
		default:
			return done, err
		}
	}
	return done, nil
}

// wake lets go on who waits for the page at addr, which is there.
func wake(fd int, addr uint64) error {
	arg := [2]uint64{addr, image.PageSize}
	return ioctl(fd, uffdioWake, unsafe.Pointer(&arg))
}

// Available says why this host cannot fill a tree's memory, nil if it can: it makes a userfaultfd as CRIU does and puts a page
// and a page of zeros through it.
func Available() error {
	mem, err := unix.Mmap(-1, 0, 2*image.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	defer unix.Munmap(mem) // after the userfaultfd is closed: it would wait until its event has been read
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	switch {
	case e == unix.ENOSYS:
		return errors.New("the kernel has no userfaultfd (CONFIG_USERFAULTFD)")
	case e == unix.EPERM:
		return errors.New("a userfaultfd that serves the kernel's own accesses is forbidden here (it takes CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd = 1)")
	case e != 0:
		return fmt.Errorf("no userfaultfd can be made: %w", e)
	}
	defer unix.Close(int(fd))
	api := [3]uint64{apiVersion, criuFeatures}
	if err := ioctl(int(fd), uffdioAPI, unsafe.Pointer(&api)); err != nil {
		return fmt.Errorf("userfaultfd does not tell of forks, moves and unmappings here (Linux 4.11, CAP_SYS_PTRACE): %w", err)
	}
	return tryPut(int(fd), mem)
}

// tryPut puts two pages into this process's own memory.
func tryPut(fd int, mem []byte) error {
	at := uint64(uintptr(unsafe.Pointer(&mem[0])))
	reg := [4]uint64{at, uint64(len(mem)), registerMissing, 0}
	if err := ioctl(fd, uffdioRegister, unsafe.Pointer(&reg)); err != nil {
		return fmt.Errorf("userfaultfd does not take private anonymous memory: %w", err)
	}
	page := make([]byte, image.PageSize)
	page[0] = 1
	if _, err := putPages(fd, at, page); err != nil {
		return fmt.Errorf("userfaultfd does not put a page in place: %w", err)
	}
	if _, err := putZeros(fd, at+image.PageSize, image.PageSize); err != nil {
		return fmt.Errorf("userfaultfd does not put zeros in place: %w", err)
	}
	if mem[0] != 1 || mem[image.PageSize] != 0 {
		return errors.New("userfaultfd puts other pages in place than it is given")
	}
	return nil
}

// control calls g with the descriptor of a file that stays open meanwhile.
func control(file *os.File, g func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = g(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func errMissing(addr uint64) error {
	return fmt.Errorf("page %#x is missing from the copied memory", addr)
}

// explain says what an ioctl on a userfaultfd failed with.
func explain(err error, addr uint64) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("page %#x has no place: CRIU did not register its mapping: %w", addr, err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("page %#x is there already, and not by drover: %w", addr, err)
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("the process ended: %w", err)
	}
	return fmt.Errorf("put page %#x in place: %w", addr, err)
}
