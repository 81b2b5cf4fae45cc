package transfer

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slab makes n values without pointers, all zero, outside Go's heap: they take memory only where they are written, and none
// of it counts for the garbage collector, which would let the heap grow to twice its size. freeSlab gives it back; it must
// not be looked at after that.
func slab[T any](n int) ([]T, error) {
	var one T
	// Without MAP_NORESERVE the kernel would count all of it as promised.
	b, err := unix.Mmap(-1, 0, n*int(unsafe.Sizeof(one)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	// It holds a tree's memory, or hashes of it: it has no business in a core dump.
	if err := unix.Madvise(b, unix.MADV_DONTDUMP); err != nil {
		unix.Munmap(b)
		return nil, err
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

// sharedSlab is a slab of bytes in a file in memory, which others may map. freeSlab unmaps it; the file is the caller's to close.
func sharedSlab(name string, n int) (*os.File, []byte, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	if err := file.Truncate(int64(n)); err != nil {
		file.Close()
		return nil, nil, err
	}
	b, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	if err := unix.Madvise(b, unix.MADV_DONTDUMP); err != nil {
		unix.Munmap(b)
		file.Close()
		return nil, nil, err
	}
	return file, b, nil
}

// freeSlab gives back a whole slab; nil is none.
func freeSlab[T any](s []T) error {
	if s == nil {
		return nil
	}
	var one T
	return unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(one))))
}
