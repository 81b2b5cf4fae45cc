package transfer

import (
	"errors"

	"drover/internal/errs"
)

// regionPages is how many pages of an address space share a piece of the table: 2 MiB, as a page table's last level.
const regionPages = 512

type region [regionPages]uint32

// pageTable is what the sender knows of the target's slots: what stands in each, how many addresses last held that content,
// and which slot each address held. Slot 0 is the zero page. It is used by one goroutine.
//
// A slot that no address holds any more keeps its content, and is found again should the content return, until a later
// round needs the place. A slot that any address has held in the round under way is not reused in it. In the final pass,
// which ends no round, each address is mapped once and holds its slot from then on: no slot that has been mapped is ever
// overwritten (the target's Store refuses it too).
type pageTable struct {
	limit  uint32 // highest slot
	next   uint32 // lowest slot never used
	spaces map[Space]map[uint64]*region
	rows   []slotRow // by slot, to limit; outside Go's heap, as are listed and index
	listed []bool    // by slot: stands in free or dying
	index  *slotIndex
	free   []uint32 // emptied before this round; a slot here may be in use again, or have been
	dying  []uint32 // emptied in this round; likewise
	round  uint32   // under way, from 1
	stock  stock
}

// slotRow is what is known of one slot.
type slotRow struct {
	sum    Digest
	pieces pieceSums
	uses   uint32 // how many addresses hold it
	left   uint32 // the round in which the last of them left it, 0 if none has; or untouched
}

// newPageTable makes a table, to be closed.
func newPageTable(limit uint32) (*pageTable, error) {
	t := &pageTable{limit: limit, next: 1, round: 1, spaces: map[Space]map[uint64]*region{}, stock: stock{room: limit}}
	var rowsErr, listErr, indexErr error
	t.rows, rowsErr = slab[slotRow](int(limit) + 1)
	t.listed, listErr = slab[bool](int(limit) + 1)
	t.index, indexErr = newSlotIndex()
	if err := errors.Join(rowsErr, listErr, indexErr); err != nil {
		return nil, errs.New(errs.Failed, "reserve a table of %d pages: %w", limit, errors.Join(err, t.close()))
	}
	return t, nil
}

// close gives the table's memory back, once.
func (t *pageTable) close() error {
	return errors.Join(freeSlab(t.rows), freeSlab(t.listed), freeSlab(t.index.cells))
}

// unknown is what a region holds for an address that was never offered; a slot is stored as its number plus one.
const unknown = 0

func (t *pageTable) cell(s Space, addr uint64, create bool) *uint32 {
	page := addr / PageSize
	regions := t.spaces[s]
	r := regions[page/regionPages]
	if r == nil {
		if !create {
			return nil
		}
		if regions == nil {
			regions = map[uint64]*region{}
			t.spaces[s] = regions
		}
		r = new(region)
		regions[page/regionPages] = r
	}
	return &r[page%regionPages]
}

// slotAt is the slot whose content the address held when last offered.
func (t *pageTable) slotAt(s Space, addr uint64) (slot uint32, ok bool) {
	c := t.cell(s, addr, false)
	if c == nil || *c == unknown {
		return 0, false
	}
	return *c - 1, true
}

// holding is where the page at an address stands.
type holding struct {
	slot uint32
	put  bool   // it must be written there first
	base uint32 // the slot that the address held before, whose content stays as it is until the round ends
	had  bool   // there is a base
	met  bool   // it stands there from an earlier visit, and no address has held it yet
}

// hold notes that the address now holds the page with that digest.
func (t *pageTable) hold(s Space, addr uint64, sum Digest) (h holding, err error) {
	if sum != zeroDigest {
		var ok bool
		if h.slot, ok = t.index.find(t.rows, sum); !ok {
			if h.slot, err = t.take(); err != nil {
				return h, err
			}
			t.rows[h.slot].sum, h.put = sum, true
			if err := t.index.add(t.rows, h.slot); err != nil {
				return h, errs.New(errs.Failed, "make room for an index of %d pages: %w", 2*t.next, err)
			}
		}
		row := &t.rows[h.slot]
		if row.uses++; row.left == untouched {
			row.left, h.met = 0, true
		}
	}
	c := t.cell(s, addr, true)
	if *c != unknown {
		h.base, h.had = *c-1, true
		t.leave(h.base)
	}
	*c = h.slot + 1
	return h, nil
}

// take finds a slot for new content.
func (t *pageTable) take() (uint32, error) {
	for len(t.free) > 0 {
		slot := t.free[0]
		t.free = t.free[1:]
		row := &t.rows[slot]
		if row.uses == 0 && row.left == t.round { // its content came back, and went again
			t.dying = append(t.dying, slot)
			continue
		}
		t.listed[slot] = false
		if row.uses == 0 {
			t.forget(slot)
			return slot, nil
		}
	}
	if t.next > t.stock.room {
		if slot, ok := t.writeOver(); ok {
			return slot, nil
		}
	}
	if t.next > t.limit {
		return 0, ErrSlots
	}
	t.next++
	return t.next - 1, nil
}

// forget takes out what is known of a slot that no address holds.
func (t *pageTable) forget(slot uint32) {
	if row := &t.rows[slot]; row.sum != zeroDigest {
		t.index.remove(t.rows, slot)
		row.sum = zeroDigest
	}
}

// leave notes that one address less holds a slot.
func (t *pageTable) leave(slot uint32) {
	if slot == 0 {
		return
	}
	row := &t.rows[slot]
	if row.uses--; row.uses > 0 {
		return
	}
	row.left = t.round
	if !t.listed[slot] {
		t.listed[slot] = true
		t.dying = append(t.dying, slot)
	}
}

// drop forgets a space that is no more.
func (t *pageTable) drop(s Space) {
	for _, r := range t.spaces[s] {
		for _, c := range r {
			if c != unknown {
				t.leave(c - 1)
			}
		}
	}
	delete(t.spaces, s)
}

// endRound lets the slots that were emptied in it be used again.
func (t *pageTable) endRound() {
	t.useUpStock()
	t.free = append(t.free, t.dying...)
	t.dying = nil
	t.round++
}
