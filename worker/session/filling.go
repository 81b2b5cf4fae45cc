package session

import (
	"iter"

	"drover/engine/image"
	"drover/worker/tree"
)

// memory is the private memory of a tree that comes: by process, which content stands where. The content stays in the stream's
// store, so that nothing is copied before it is put into the restored tree.
type memory struct {
	spaces []uint64 // pids in the tree's own pid namespace, as they came
	runs   map[uint64][]run
}

// run is neighbouring pages whose content is neighbours in the store too.
type run struct {
	addr uint64
	data []byte
}

var _ tree.Content = (*memory)(nil)

func newMemory() *memory { return &memory{runs: map[uint64][]run{}} }

// add notes the content of pages; addresses of a process rise from call to call. data is kept, not copied.
func (m *memory) add(pid, addr uint64, data []byte) {
	runs, known := m.runs[pid]
	if !known {
		m.spaces = append(m.spaces, pid)
	}
	if n := len(runs); n > 0 {
		last := &runs[n-1]
		if last.addr+uint64(len(last.data)) == addr && follows(last.data, data) {
			last.data = last.data[:len(last.data)+len(data)]
			return
		}
	}
	m.runs[pid] = append(runs, run{addr, data})
}

// follows says whether b begins in memory where a ends, in one allocation.
func follows(a, b []byte) bool {
	return cap(a) >= len(a)+len(b) && &a[:len(a)+1][len(a)] == &b[0]
}

// Spaces lists the processes that have memory to be filled.
func (m *memory) Spaces() []uint64 { return m.spaces }

// Runs gives the memory of a process in rising order.
func (m *memory) Runs(pid uint64) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for _, r := range m.runs[pid] {
			if !yield(r.addr, r.data) {
				return
			}
		}
	}
}

// pages is how many pages are to be filled.
func (m *memory) pages() uint64 {
	if m == nil {
		return 0
	}
	n := 0
	for _, runs := range m.runs {
		for _, r := range runs {
			n += len(r.data)
		}
	}
	return uint64(n) / image.PageSize
}
