package transfer

import (
	"encoding/binary"
	"math/bits"
)

// slotIndex finds the slot that holds a digest's content: a hash table with linear probing, whose keys are the rows' digests.
// Digests are keyed and so spread by themselves. It lives outside Go's heap and is used by one goroutine.
type slotIndex struct {
	cells []uint32 // slots; 0 is free. A power of two of them
	used  int
}

// indexLeast is how many cells an index begins with.
const indexLeast = 1 << 10

func newSlotIndex() (*slotIndex, error) {
	cells, err := slab[uint32](indexLeast)
	return &slotIndex{cells: cells}, err
}

// home is where a digest's slot would stand if it were alone.
func (x *slotIndex) home(sum Digest) uint64 {
	return binary.LittleEndian.Uint64(sum[:]) & uint64(len(x.cells)-1)
}

func (x *slotIndex) find(rows []slotRow, sum Digest) (slot uint32, ok bool) {
	for at := x.home(sum); x.cells[at] != 0; at = x.after(at) {
		if slot := x.cells[at]; rows[slot].sum == sum {
			return slot, true
		}
	}
	return 0, false
}

func (x *slotIndex) after(at uint64) uint64 { return (at + 1) & uint64(len(x.cells)-1) }

// add adds a slot whose row holds its digest, which is not in the index.
func (x *slotIndex) add(rows []slotRow, slot uint32) error {
	if x.used >= len(x.cells)/8*7 {
		if err := x.grow(rows); err != nil {
			return err
		}
	}
	x.put(rows, slot)
	x.used++
	return nil
}

func (x *slotIndex) put(rows []slotRow, slot uint32) {
	at := x.home(rows[slot].sum)
	for x.cells[at] != 0 {
		at = x.after(at)
	}
	x.cells[at] = slot
}

// grow moves all to twice as many cells.
func (x *slotIndex) grow(rows []slotRow) error {
	cells, err := slab[uint32](1 << bits.Len(uint(len(x.cells))))
	if err != nil {
		return err
	}
	old := x.cells
	x.cells = cells
	for _, slot := range old {
		if slot != 0 {
			x.put(rows, slot)
		}
	}
	return freeSlab(old)
}

// remove takes out a slot that is in the index, and moves up those behind that it has kept from their places.
func (x *slotIndex) remove(rows []slotRow, slot uint32) {
	at := x.home(rows[slot].sum)
	for x.cells[at] != slot {
		at = x.after(at)
	}
	x.used--
	hole := at
	for at = x.after(at); x.cells[at] != 0; at = x.after(at) {
		home := x.home(rows[x.cells[at]].sum)
		// It may move to the hole if that is not before its home, going round.
		if mask := uint64(len(x.cells) - 1); (at-home)&mask >= (at-hole)&mask {
			x.cells[hole] = x.cells[at]
			hole = at
		}
	}
	x.cells[hole] = 0
}
