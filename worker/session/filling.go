package session

import (
	"cmp"
	"iter"
	"slices"

	"drover/engine/image"
	"drover/engine/lazy"
)

// memory is the private memory of a tree that comes: by process, which content stands where. The content stays in the stream's
// store, so that nothing is copied before it is put into the restored tree. Reading it from several goroutines is safe once
// nothing is added any more.
type memory struct {
	runs  map[uint64][]lazy.Run // by pid in the tree's own pid namespace; addresses rise
	pages uint64
}

var _ lazy.Memory = (*memory)(nil)

func newMemory() *memory { return &memory{runs: map[uint64][]lazy.Run{}} }

// add notes the content of pages; addresses of a process rise from call to call. data is kept, not copied.
func (m *memory) add(pid, addr uint64, data []byte) {
	m.pages += uint64(len(data)) / image.PageSize
	runs := m.runs[pid]
	if n := len(runs); n > 0 {
		last := &runs[n-1]
		if end(*last) == addr && follows(last.Data, data) {
			last.Data = last.Data[:len(last.Data)+len(data)]
			return
		}
	}
	m.runs[pid] = append(runs, lazy.Run{Addr: addr, Data: data})
}

func end(r lazy.Run) uint64 { return r.Addr + uint64(len(r.Data)) }

// follows says whether b begins in memory where a ends, in one allocation.
func follows(a, b []byte) bool {
	return cap(a) >= len(a)+len(b) && &a[:len(a)+1][len(a)] == &b[0]
}

// Runs implements lazy.Memory.
func (m *memory) Runs(pid, from, to uint64) iter.Seq[lazy.Run] {
	runs := m.runs[pid]
	first, _ := slices.BinarySearchFunc(runs, from, func(r lazy.Run, addr uint64) int { return cmp.Compare(end(r), addr+1) })
	return func(yield func(lazy.Run) bool) {
		for _, r := range runs[first:] {
			if r.Addr >= to || !yield(r) {
				return
			}
		}
	}
}
