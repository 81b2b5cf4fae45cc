package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/testenv/victims/vital"
)

// field is a piece of private anonymous memory and what its pages must hold.
type field struct {
	at       uintptr
	versions []uint32 // by page: how often it was written
	owner    uint64
	prot     int
	pieced   bool // it may be several mappings, which cannot be moved as one
}

const (
	empty   = 0              // reads as zeroes
	unknown = math.MaxUint32 // given to MADV_FREE: the kernel may or may not have forgotten it
)

func (f *field) len() uintptr { return uintptr(len(f.versions)) * vital.PageSize }

func (f *field) page(i int) []byte { return bytesAt(f.at+uintptr(i)*vital.PageSize, vital.PageSize) }

// bytesAt is memory that Go knows nothing of.
func bytesAt(at uintptr, n int) []byte {
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&at))), n)
}

// mark is what the first and the last word of a page must be.
func (f *field) mark(i int) uint64 {
	if f.versions[i] == empty {
		return 0
	}
	return f.owner<<56 ^ uint64(f.at)<<16 ^ uint64(i)<<40 ^ uint64(f.versions[i])*0x9e3779b97f4a7c15 | 1
}

// write gives a page a new mark. Through the kernel it is read(2) that stores it.
func (f *field) write(i int, throughKernel bool, pipe [2]int) error {
	f.versions[i]++
	if f.versions[i] == unknown || f.versions[i] == empty {
		f.versions[i] = 1
	}
	page := f.page(i)
	if !throughKernel {
		f.fill(i, page)
		return nil
	}
	b := make([]byte, vital.PageSize)
	f.fill(i, b)
	if _, err := unix.Write(pipe[1], b); err != nil {
		return fmt.Errorf("write to a pipe: %w", err)
	}
	for len(page) > 0 {
		n, err := unix.Read(pipe[0], page)
		if err != nil {
			return fmt.Errorf("read page %d of %#x from a pipe: %w", i, f.at, err)
		}
		page = page[n:]
	}
	return nil
}

func (f *field) fill(i int, b []byte) {
	x := f.mark(i)
	for at := 0; at < vital.PageSize; at += 256 {
		binary.LittleEndian.PutUint64(b[at:], x+uint64(at))
	}
	binary.LittleEndian.PutUint64(b, x)
	binary.LittleEndian.PutUint64(b[vital.PageSize-8:], x)
}

// check says what is wrong with a page that can be read.
func (f *field) check(i int) error {
	if f.versions[i] == unknown {
		return nil
	}
	page := f.page(i)
	first, last, want := binary.LittleEndian.Uint64(page), binary.LittleEndian.Uint64(page[vital.PageSize-8:]), f.mark(i)
	if first != want || last != want {
		return fmt.Errorf("page %d of %d at %#x, written %d times: its marks are %#x and %#x, want %#x", i, len(f.versions), f.at, f.versions[i], first, last, want)
	}
	return nil
}

func (f *field) protect(prot int) error {
	f.prot = prot
	return call(unix.SYS_MPROTECT, f.at, f.len(), uintptr(prot))
}

// forget has the kernel drop a range of pages: at once, or when it likes.
func (f *field) forget(from, to, advice int) error {
	left := uint32(empty)
	if advice == unix.MADV_FREE {
		left = unknown
	}
	for i := from; i < to; i++ {
		if f.versions[i] != empty {
			f.versions[i] = left
		}
	}
	return call(unix.SYS_MADVISE, f.at+uintptr(from)*vital.PageSize, uintptr(to-from)*vital.PageSize, uintptr(advice))
}

// replace maps new memory over a range of pages.
func (f *field) replace(from, to int) error {
	clear(f.versions[from:to])
	f.pieced = true
	_, err := mapAt(f.at+uintptr(from)*vital.PageSize, uintptr(to-from)*vital.PageSize, unix.MAP_FIXED)
	return err
}

// resize grows or shrinks the field, where it is or elsewhere, and moves it to an address of choice if to is not 0. Marks are
// those of the address, so what moves is written anew.
func (f *field) resize(pages int, to uintptr) error {
	flags := uintptr(unix.MREMAP_MAYMOVE)
	if to != 0 {
		flags |= unix.MREMAP_FIXED
	}
	at, _, e := unix.Syscall6(unix.SYS_MREMAP, f.at, f.len(), uintptr(pages)*vital.PageSize, flags, to, 0)
	if e != 0 {
		return e
	}
	versions := make([]uint32, pages)
	copy(versions, f.versions)
	moved := field{at: at, versions: versions, owner: f.owner, prot: f.prot}
	for i := range min(pages, len(f.versions)) {
		if versions[i] == empty || versions[i] == unknown || i%8 != 0 && at == f.at {
			continue
		}
		if err := was(f, moved.page(i), i); err != nil {
			return err
		}
		if at != f.at {
			moved.fill(i, moved.page(i))
		}
	}
	*f = moved
	return nil
}

// was says whether a page that moved still holds what it held where it was.
func was(f *field, page []byte, i int) error {
	if got, want := binary.LittleEndian.Uint64(page), f.mark(i); got != want {
		return fmt.Errorf("page %d, moved from %#x: its mark is %#x, want %#x", i, f.at, got, want)
	}
	return nil
}

func mapAt(at, size uintptr, flags int) (uintptr, error) {
	at, _, e := unix.Syscall6(unix.SYS_MMAP, at, size, unix.PROT_READ|unix.PROT_WRITE, uintptr(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|flags), ^uintptr(0), 0)
	if e != 0 {
		return 0, e
	}
	return at, nil
}

func call(nr, a, b, c uintptr) error {
	if _, _, e := unix.Syscall(nr, a, b, c); e != 0 {
		return e
	}
	return nil
}
