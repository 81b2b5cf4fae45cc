package track

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"drover/engine/image"
)

// clean returns the ranges, by rising address, of which it is certain that what look has handed over last is what they hold. The process
// stands still. Only mappings count that nothing but the program writes to. One scan looks at all of them; it does not ask whose a page
// is, for which the kernel would have to look at each one's descriptor, and that takes more than twice as long as the rest.
func (w *watch) clean() (known []span, err error) {
	maps, err := w.process.maps()
	end := uint64(0) // vsyscall, behind it, is where no address of a program may be
	for _, m := range maps {
		if !m.kernels() {
			end = m.end
		}
	}
	if err != nil || end == 0 {
		return nil, err
	}
	var still []span
	err = w.process.scan(maps[0].start, end, quiet, func(at region) error {
		still = append(still, span{at.start, at.end})
		return nil
	})
	if errors.Is(err, unix.ESRCH) {
		return nil, errOtherMemory
	}
	if err != nil {
		return nil, fmt.Errorf("scan for what was not written: %w", err)
	}
	still = rising(still)
	return less(still, rising(append(w.unsure(), w.others(maps, still)...))), nil
}

// unsure are the pages that look could not hand over, and those that it has handed over only once.
func (w *watch) unsure() []span {
	all := slices.Clone(w.recent)
	for addr := range w.owed {
		all = append(all, span{addr, addr + image.PageSize})
	}
	return all
}

// others is all but the anonymous mappings that this descriptor watches. What another watches cannot be told but by registering: what is
// registered already stays as it is, and what is another's is refused. Only mappings that are watched by one of the two are asked about,
// neighbours at once.
func (w *watch) others(maps []mapping, still []span) (not []span) {
	at := uint64(0)
	for i := 0; i < len(maps); i++ {
		first := i
		for i < len(maps) && maps[i].anonymous() && touches(&still, maps[i]) {
			i++
		}
		if first == i {
			continue
		}
		group := maps[first:i]
		if register(w.uffd.FD, group[0].start, group[len(group)-1].end) == nil {
			not, at = append(not, span{at, group[0].start}), group[len(group)-1].end
			continue
		}
		for _, m := range group {
			if register(w.uffd.FD, m.start, m.end) == nil {
				not, at = append(not, span{at, m.start}), m.end
			}
		}
	}
	return append(not, span{at, math.MaxUint64})
}

// touches says whether one of the ranges is in a mapping; both rise from call to call, and ranges that are passed are dropped.
func touches(ranges *[]span, m mapping) bool {
	i, _ := slices.BinarySearchFunc(*ranges, m.start, func(s span, start uint64) int { return cmp.Compare(s.end, start+1) })
	*ranges = (*ranges)[i:]
	return len(*ranges) > 0 && (*ranges)[0].start < m.end
}
