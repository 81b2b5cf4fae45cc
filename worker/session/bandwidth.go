package session

import (
	"math"
	"slices"
	"sync"

	"drover/internal/migration"
)

// bandwidth shares what this host may send among the sources that copy. A source whose tree is frozen is not limited: what is
// left is little, and the tree stands still until it is there.
type bandwidth struct {
	mu   sync.Mutex
	host int64 // bytes a second, 0 is no limit
	of   map[migration.ID]*sending
}

// sending is a source that copies.
type sending struct {
	own int64 // its migration's limit, bytes a second, 0 is none
	set func(bytesPerSecond int64)
}

// join limits a source until it leaves; set is called with each new limit, 0 for none.
func (b *bandwidth) join(id migration.ID, own int64, set func(int64)) {
	b.change(func() { b.of[id] = &sending{max(0, own), set} })
}

func (b *bandwidth) leave(id migration.ID) { b.change(func() { delete(b.of, id) }) }

// limit changes a source's own limit.
func (b *bandwidth) limit(id migration.ID, own int64) {
	b.change(func() {
		if s := b.of[id]; s != nil {
			s.own = own
		}
	})
}

func (b *bandwidth) limitHost(bytesPerSecond int64) {
	b.change(func() { b.host = bytesPerSecond })
}

// change does f and tells every source what it may send now.
func (b *bandwidth) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	var ids []migration.ID
	var own []int64
	for id, s := range b.of {
		ids, own = append(ids, id), append(own, s.own)
	}
	for i, n := range shares(b.host, own) {
		b.of[ids[i]].set(n)
	}
}

// shares divides a host's limit among sources with limits of their own, 0 being none: what one may not use, the others get.
func shares(host int64, own []int64) []int64 {
	out := slices.Clone(own)
	if host <= 0 {
		return out
	}
	order := make([]int, len(own))
	for i := range order {
		order[i] = i
	}
	wants := func(i int) int64 {
		if own[i] == 0 {
			return math.MaxInt64
		}
		return own[i]
	}
	slices.SortFunc(order, func(a, b int) int {
		if wants(a) < wants(b) {
			return -1
		}
		return 1
	})
	for n, i := range order {
		out[i] = min(wants(i), max(1, host/int64(len(order)-n)))
		host -= out[i]
	}
	return out
}
