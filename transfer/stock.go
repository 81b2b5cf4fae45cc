package transfer

import "math"

// stock is the part of a table that is about pages which the target has from an earlier visit: slots 1 to last, until the first round
// has ended. They are in no hurry to be used for anything else: what they hold may be what the next page of the tree holds.
type stock struct {
	last uint32
	over uint32 // the slots up to this one are no stock any more, or are not untouched
	room uint32 // with a higher slot the target needs more memory than it was promised: then what is left of the stock is written over
}

// untouched marks the row of a slot of the stock whose content no address has held yet.
const untouched = math.MaxUint32

// keepsStock says that the target has a page with that digest in the next slot. One that is worth nothing, because it is zero or
// there twice, may be written over at once. Slots beyond the limit are not for this sender.
func (t *pageTable) keepsStock(sum Digest) error {
	if t.next > t.limit {
		return nil
	}
	slot := t.next
	t.next, t.stock.last = slot+1, slot
	if _, twice := t.index.find(t.rows, sum); twice || sum == zeroDigest {
		t.listed[slot] = true
		t.free = append(t.free, slot)
		return nil
	}
	t.rows[slot].sum, t.rows[slot].left = sum, untouched
	return t.index.add(t.rows, slot)
}

// writeOver finds a slot of the stock that no address has held. Pages come about in the order in which they came the last time, so
// those in the lowest slots have the least chance to be met.
func (t *pageTable) writeOver() (slot uint32, ok bool) {
	for t.stock.over < t.stock.last {
		t.stock.over++
		if t.rows[t.stock.over].left == untouched {
			t.rows[t.stock.over].left = 0
			t.forget(t.stock.over)
			return t.stock.over, true
		}
	}
	return 0, false
}

// useUpStock makes what is left of the stock free, as slots that were emptied are: it can still be found until a later round needs them.
func (t *pageTable) useUpStock() {
	for t.stock.over < t.stock.last {
		t.stock.over++
		if row := &t.rows[t.stock.over]; row.left == untouched {
			row.left = 0
			t.listed[t.stock.over] = true
			t.free = append(t.free, t.stock.over)
		}
	}
}
