package lazy

import (
	"math"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Sparing is Memory that can give back to the kernel, while others are still put in place, what nobody wants any more: so that the
// copy and the tree together are little more than the tree.
type Sparing interface {
	Memory
	// Done says that the pages of [from, to) of a process are in place. They are not asked for again, but as often as Again was called
	// for them.
	Done(pid, from, to uint64)
	// Again says that the pages of [from, to), which are wanted still, will be wanted once more: a child has been forked.
	Again(pid, from, to uint64)
	// GiveBack gives back what has become free. It takes about as long as putting it in place did. One goroutine at a time calls it.
	GiveBack()
}

// uses counts, by page of a file of pages, how often it is still wanted. A page may stand for many of a tree.
type uses []atomic.Uint32

// bytes is the size of the file.
func (u uses) bytes() uint64 { return uint64(len(u)) * pageSize }

// add counts the pages of an extent, as far as they stand in the file.
func (u uses) add(e Extent) {
	e, _ = e.at(u.bytes())
	for n := range e.Pages {
		u[e.Offset/pageSize+n].Add(1)
	}
}

// over takes one use of n pages from first and calls f for each run of those that have no other.
func (u uses) over(first, n uint64, f func(first, n uint64)) {
	run := uint64(0)
	for i := first; i < first+n; i++ {
		if u[i].Add(math.MaxUint32) == 0 {
			run++
			continue
		}
		if run > 0 {
			f(i-run, run)
		}
		run = 0
	}
	if run > 0 {
		f(first+n-run, run)
	}
}

// Done implements Sparing.
func (m *FileMemory) Done(pid, from, to uint64) {
	for e := range m.index.within(pid, from, to) {
		e, _ = e.at(m.uses.bytes())
		m.uses.over(e.Offset/pageSize, e.Pages, func(first, n uint64) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if last := len(m.spare) - 1; last >= 0 && m.spare[last].end() == first {
				m.spare[last].n += n
				return
			}
			m.spare = append(m.spare, stretch{first, n})
		})
	}
}

// Again implements Sparing.
func (m *FileMemory) Again(pid, from, to uint64) {
	for e := range m.index.within(pid, from, to) {
		m.uses.add(e)
	}
}

// stretch is n pages of a file from first.
type stretch struct{ first, n uint64 }

func (s stretch) end() uint64 { return s.first + s.n }

// GiveBack implements Sparing.
func (m *FileMemory) GiveBack() {
	m.mu.Lock()
	spare := m.spare
	m.spare = nil
	m.mu.Unlock()
	for _, s := range spare {
		// What cannot be given back now goes with the file.
		_ = unix.Fallocate(int(m.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(s.first*pageSize), int64(s.n*pageSize))
	}
}
