package criu

import (
	"encoding/binary"
	"os"
	"unsafe"
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
