package lazy

import (
	"slices"
	"sort"
)

// want is memory of a process that is not in place yet: [addr, end). What belongs there stood at from when the process was dumped.
type want struct{ addr, end, from uint64 }

// part is what of a want lies in [addr, end), which it reaches into.
func (w want) part(addr, end uint64) want {
	addr = max(addr, w.addr)
	return want{addr, min(end, w.end), w.from + addr - w.addr}
}

// wants are all of a process, by rising address and without overlaps.
type wants []want

// first is the index of the first want that ends beyond addr.
func (w wants) first(addr uint64) int {
	return sort.Search(len(w), func(i int) bool { return w[i].end > addr })
}

// page is the want of the page at addr.
func (w wants) page(addr uint64) (one want, ok bool) {
	if i := w.first(addr); i < len(w) && w[i].addr <= addr {
		return w[i].part(addr, addr+pageSize), true
	}
	return want{}, false
}

// take removes and returns the first bytes that are wanted in [addr, end), at most so many.
func (w *wants) take(addr, end, most uint64) (one want, ok bool) {
	i := w.first(addr)
	if i == len(*w) || (*w)[i].addr >= end {
		return want{}, false
	}
	all := *w
	one = all[i].part(addr, end)
	one = one.part(one.addr, one.addr+most)
	if i == 0 && one == all[0] { // as it mostly is: nothing need be moved up
		*w = all[1:]
		return one, true
	}
	w.cut(one.addr, one.end)
	return one, true
}

// put adds a want where there is none.
func (w *wants) put(one want) {
	if one.addr < one.end {
		*w = slices.Insert(*w, w.first(one.addr), one)
	}
}

// cut removes and returns what is wanted in [addr, end).
func (w *wants) cut(addr, end uint64) (out wants) {
	i := w.first(addr)
	j := i
	var left wants // of the wants that are cut
	for ; j < len(*w) && (*w)[j].addr < end; j++ {
		one := (*w)[j]
		out = append(out, one.part(addr, end))
		if one.addr < addr {
			left = append(left, one.part(one.addr, addr))
		}
		if end < one.end {
			left = append(left, one.part(end, one.end))
		}
	}
	*w = slices.Replace(*w, i, j, left...)
	return out
}

// move has the process's memory of [addr, addr+n) at to from now on. What was wanted there has been unmapped.
func (w *wants) move(addr, to, n uint64) {
	moved := w.cut(addr, addr+n)
	w.cut(to, to+n)
	for _, one := range moved {
		w.put(want{one.addr - addr + to, one.end - addr + to, one.from})
	}
}

// bytes is how much is wanted.
func (w wants) bytes() (n uint64) {
	for _, one := range w {
		n += one.end - one.addr
	}
	return n
}
