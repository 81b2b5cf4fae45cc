package criu

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pagemapBit reads one bit of the pagemap entry of the first page of b.
func pagemapBit(b []byte, bit uint) bool {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return false
	}
	defer f.Close()
	var e [8]byte
	at := int64(uintptr(unsafe.Pointer(&b[0]))) / int64(os.Getpagesize()) * 8
	if _, err := f.ReadAt(e[:], at); err != nil {
		return false
	}
	return binary.LittleEndian.Uint64(e[:])>>bit&1 == 1
}

// include/uapi/linux/userfaultfd.h
const (
	uffdUserModeOnly  = 1
	uffdioAPI         = 0xc018aa3f
	uffdAPIVersion    = 0xaa
	featureWPUnpop    = 1 << 13
	featureWPAsync    = 1 << 15
	featureWPHugeShm  = 1 << 12
	wpTrackerFeatures = featureWPUnpop | featureWPAsync | featureWPHugeShm
)

// wpAsync says whether userfaultfd can write-protect asynchronously (kernel 6.7), which the wp tracker stands on.
func wpAsync() bool {
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserModeOnly, 0, 0)
	if e != 0 {
		return false
	}
	defer unix.Close(int(fd))
	api := [3]uint64{uffdAPIVersion, wpTrackerFeatures, 0}
	_, _, e = unix.Syscall(unix.SYS_IOCTL, fd, uffdioAPI, uintptr(unsafe.Pointer(&api)))
	return e == 0
}
