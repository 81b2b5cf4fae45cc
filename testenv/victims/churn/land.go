package main

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"drover/testenv/victims/vital"
)

// land is all the memory of a process that changes its layout. It is used by one goroutine.
type land struct {
	random *rand.Rand
	most   int // pages
	counts *counts
	owner  uint64
	fields []*field
	heap   *field // grown and shrunk with brk
	shared []byte
	pipe   [2]int
	kids   []int
	ready  bool
}

// mostPages is how long a field may be.
const mostPages = 512

func (l *land) prepare() error {
	l.ready = true
	if err := unix.Pipe2(l.pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	end, _, _ := unix.RawSyscall(unix.SYS_BRK, 0, 0, 0)
	l.heap = &field{at: (end + vital.PageSize - 1) &^ (vital.PageSize - 1), owner: l.owner, prot: rw}
	var err error
	l.shared, err = unix.Mmap(-1, 0, 64*vital.PageSize, rw, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	return err
}

const rw = unix.PROT_READ | unix.PROT_WRITE

// change makes one change that is drawn, and counts it.
func (l *land) change() {
	if !l.ready {
		l.try(l.prepare())
	}
	l.reap()
	total := 0
	for _, f := range l.fields {
		total += len(f.versions)
	}
	switch n := l.random.IntN(100); {
	case len(l.fields) < 4 || n < 15 && total < l.most:
		l.try(l.add())
	case n < 25:
		l.try(l.remove())
	case n < 70:
		l.try(l.alter(l.fields[l.random.IntN(len(l.fields))]))
	case n < 82:
		l.try(l.moveBreak())
	case n < 84 && len(l.kids) < 3:
		l.try(l.fork())
	default:
		l.check()
	}
	atomic.AddUint64(&l.counts.Changes, 1)
	atomic.StoreUint64(&l.counts.Pages, uint64(total))
}

func (l *land) try(err error) {
	if err != nil {
		l.counts.fault(err)
	}
}

// add maps a field, some of them with huge pages.
func (l *land) add() error {
	pages := 1 + l.random.IntN(mostPages)
	at, err := mapAt(0, uintptr(pages)*vital.PageSize, 0)
	if err != nil {
		return fmt.Errorf("map %d pages: %w", pages, err)
	}
	f := &field{at: at, versions: make([]uint32, pages), owner: l.owner, prot: rw}
	if l.random.IntN(4) == 0 {
		_ = call(unix.SYS_MADVISE, f.at, f.len(), unix.MADV_HUGEPAGE) // not every kernel has them
	}
	for i := range pages { // most of it, so that there is something to lose
		if l.random.IntN(3) > 0 {
			if err := f.write(i, false, l.pipe); err != nil {
				return err
			}
		}
	}
	l.fields = append(l.fields, f)
	return nil
}

// remove unmaps a field, or one end of it.
func (l *land) remove() error {
	i := l.random.IntN(len(l.fields))
	f := l.fields[i]
	cut := l.random.IntN(len(f.versions))
	if cut == 0 || l.random.IntN(2) == 0 {
		l.fields = append(l.fields[:i], l.fields[i+1:]...)
		return call(unix.SYS_MUNMAP, f.at, f.len(), 0)
	}
	gone := f.at + uintptr(cut)*vital.PageSize
	size := f.len() - uintptr(cut)*vital.PageSize
	f.versions = f.versions[:cut]
	return call(unix.SYS_MUNMAP, gone, size, 0)
}

// alter changes a field in one of many ways.
func (l *land) alter(f *field) error {
	if f.prot != rw { // what was taken away is given back
		return f.protect(rw)
	}
	from := l.random.IntN(len(f.versions))
	to := from + 1 + l.random.IntN(len(f.versions)-from)
	switch l.random.IntN(8) {
	case 0:
		return f.protect(unix.PROT_NONE)
	case 1:
		return f.protect(unix.PROT_READ)
	case 2:
		return f.forget(from, to, unix.MADV_DONTNEED)
	case 3:
		return f.forget(from, to, unix.MADV_FREE)
	case 4, 5:
		return f.replace(from, to)
	case 6: // to an address of choice, over something that is there for it
		pages := 1 + l.random.IntN(mostPages)
		at, err := mapAt(0, uintptr(pages)*vital.PageSize, 0)
		if err != nil {
			return err
		}
		if !f.pieced {
			return f.resize(pages, at)
		}
		return call(unix.SYS_MUNMAP, at, uintptr(pages)*vital.PageSize, 0)
	default:
		if !f.pieced {
			return f.resize(1+l.random.IntN(mostPages), 0)
		}
		return nil
	}
}

// moveBreak grows or shrinks the heap.
func (l *land) moveBreak() error {
	pages := l.random.IntN(mostPages)
	want := l.heap.at + uintptr(pages)*vital.PageSize
	if got, _, _ := unix.RawSyscall(unix.SYS_BRK, want, 0, 0); got != want {
		return fmt.Errorf("the break is %#x, want %#x", got, want)
	}
	versions := make([]uint32, pages)
	copy(versions, l.heap.versions)
	l.heap.versions = versions
	return nil
}

// write writes a page, now and then through the kernel, and now and then one that is shared with forked children.
func (l *land) write() {
	f := l.heap
	if len(l.fields) > 0 && (f == nil || l.random.IntN(5) > 0) {
		f = l.fields[l.random.IntN(len(l.fields))]
	}
	if f == nil || len(f.versions) == 0 || f.prot != rw {
		return
	}
	i := l.random.IntN(len(f.versions))
	l.try(f.check(i))
	l.try(f.write(i, l.random.IntN(20) == 0, l.pipe))
	if l.random.IntN(50) == 0 {
		l.shared[l.random.IntN(len(l.shared))]++
	}
	atomic.AddUint64(&l.counts.Written, 1)
}

// check looks at a page of every field.
func (l *land) check() {
	for _, f := range append(l.fields[:len(l.fields):len(l.fields)], l.heap) {
		if len(f.versions) > 0 && f.prot != unix.PROT_NONE {
			l.try(f.check(l.random.IntN(len(f.versions))))
		}
	}
}

func (l *land) checkAll() {
	if !l.ready {
		return
	}
	for _, f := range append(l.fields, l.heap) {
		if f.prot == unix.PROT_NONE {
			l.try(f.protect(unix.PROT_READ))
		}
		for i := range f.versions {
			l.try(f.check(i))
		}
	}
}
