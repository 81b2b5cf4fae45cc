package track

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine/image"
	"drover/engine/track/inject"
)

// include/uapi/linux/userfaultfd.h
const (
	uffdioAPI        = 0xc018aa3f
	uffdioRegister   = 0xc020aa00
	uffdAPIVersion   = 0xaa
	uffdWriteProtect = 1 << 1 // UFFDIO_REGISTER_MODE_WP
	uffdUserModeOnly = 1
	// asynchronous write protection (the kernel notes the first write and lets it through), of any kind of memory
	uffdFeatures = 1<<15 /* WP_ASYNC */ | 1<<13 /* WP_UNPOPULATED */ | 1<<12 /* WP_HUGETLBFS_SHMEM */
)

// enable agrees with the kernel on what a new userfaultfd is for.
func enable(uffd int) error {
	api := [3]uint64{uffdAPIVersion, uffdFeatures, 0}
	return ioctl(uffd, uffdioAPI, unsafe.Pointer(&api))
}

// register has the descriptor watch the mappings between start and end. Watching them already is no error.
func register(uffd int, start, end uint64) error {
	arg := [4]uint64{start, end - start, uffdWriteProtect, 0}
	return ioctl(uffd, uffdioRegister, unsafe.Pointer(&arg))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// ProbeWP says why the wp tracker cannot work on this machine, nil if it can: it watches a page of this process and writes to it.
// What it cannot tell is whether a tree may be traced; processes that may not are hashed.
func ProbeWP() error {
	if !inject.Supported {
		return inject.ErrMachine
	}
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserModeOnly, 0, 0)
	if e != 0 {
		return fmt.Errorf("make a userfaultfd: %w", e)
	}
	defer unix.Close(int(fd))
	if err := enable(int(fd)); err != nil {
		return fmt.Errorf("userfaultfd without asynchronous write protection (Linux 6.7): %w", err)
	}
	return probeWatching(int(fd))
}

// probeWatching looks whether writes are reported, once, and whether a page that moves loses the mark that it was not written: before
// Linux 6.13 it could keep it at its new place, and be missed.
func probeWatching(uffd int) error {
	b, err := unix.Mmap(-1, 0, 3*image.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map pages: %w", err)
	}
	defer unix.Munmap(b)
	start := uint64(uintptr(unsafe.Pointer(&b[0])))
	p, err := openProcess(unix.Getpid())
	if err != nil {
		return fmt.Errorf("open own memory: %w", err)
	}
	defer p.close()
	for _, c := range []struct {
		page uint64 // that is registered and scanned
		act  func() // before
		want int
	}{
		{0, func() { b[0]++ }, 1},
		{0, func() {}, 0},
		{0, func() { b[0]++ }, 1},
		{2, func() { move(start, start+2*image.PageSize) }, 1},
	} {
		c.act()
		from, found := start+c.page*image.PageSize, 0
		if err := register(uffd, from, from+image.PageSize); err != nil {
			return fmt.Errorf("register a page for write protection: %w", err)
		}
		if err := p.scan(from, from+image.PageSize, written, func(region) error { found++; return nil }); err != nil {
			return fmt.Errorf("PAGEMAP_SCAN: %w", err)
		}
		if found != c.want {
			return errors.New("PAGEMAP_SCAN does not tell rightly which pages were written")
		}
	}
	return nil
}

// move moves a page of this process's.
func move(from, to uint64) {
	_, _, _ = unix.Syscall6(unix.SYS_MREMAP, uintptr(from), image.PageSize, image.PageSize, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, uintptr(to), 0)
}
