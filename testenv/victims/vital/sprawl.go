package vital

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sprawl gives the program an address space like a large runtime's, for as long as it lives: so many mappings, by turns a page, of which every
// other one is written to, and what is reserved up to the next; and so much address space besides that is only reserved.
func Sprawl(mappings int, reserved Size) error {
	const apart = 4 << 20
	if reserved > 0 {
		if _, err := reserve(uintptr(reserved)); err != nil {
			return err
		}
	}
	if mappings < 2 {
		return nil
	}
	all, err := reserve(uintptr(mappings) / 2 * apart)
	if err != nil {
		return err
	}
	for i := range mappings / 2 {
		page := unsafe.Slice((*byte)(unsafe.Add(all, i*apart)), PageSize)
		if err := unix.Mprotect(page, unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return fmt.Errorf("map a page, mapping %d of %d: %w", 2*i, mappings, err)
		}
		if i%2 == 0 {
			page[0] = 1
		}
	}
	return nil
}

func reserve(size uintptr) (unsafe.Pointer, error) {
	at, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of address space: %w", size, err)
	}
	return at, nil
}
