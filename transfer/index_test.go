package transfer

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// TestTheIndexFindsWhatWasAddedAndNotRemoved: also when digests crowd in a few places, and round the end of the cells.
func TestTheIndexFindsWhatWasAddedAndNotRemoved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, err := newSlotIndex()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { freeSlab(x.cells) }()
		spread := rapid.Uint64Range(1, 300).Draw(t, "spread")
		slots := rapid.IntRange(1, 100).Draw(t, "slots")
		rows, in := make([]slotRow, slots+1), map[uint32]bool{}
		homes := rapid.SliceOfN(rapid.Uint64Range(0, spread-1), slots, slots).Draw(t, "homes")
		for i, home := range homes {
			binary.LittleEndian.PutUint64(rows[i+1].sum[:], indexLeast-spread/2+home)
			binary.LittleEndian.PutUint32(rows[i+1].sum[8:], uint32(i))
		}
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, slots), 1, 300).Draw(t, "toggled") {
			slot := uint32(n)
			if in[slot] {
				x.remove(rows, slot)
				delete(in, slot)
			} else if err := x.add(rows, slot); err != nil {
				t.Fatal(err)
			} else {
				in[slot] = true
			}
			for slot := uint32(1); int(slot) <= slots; slot++ {
				if got, ok := x.find(rows, rows[slot].sum); ok != in[slot] || ok && got != slot {
					t.Fatalf("slot %d is found: %t, as %d", slot, ok, got)
				}
			}
		}
	})
}

func TestTheIndexGrows(t *testing.T) {
	x, err := newSlotIndex()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { freeSlab(x.cells) }()
	rows, r := make([]slotRow, 10*indexLeast), rand.New(rand.NewPCG(1, 2))
	for slot := range rows {
		binary.LittleEndian.PutUint64(rows[slot].sum[:], r.Uint64())
	}
	for slot := 1; slot < len(rows); slot++ {
		if err := x.add(rows, uint32(slot)); err != nil {
			t.Fatal(err)
		}
	}
	for slot := 1; slot < len(rows); slot++ {
		if got, ok := x.find(rows, rows[slot].sum); !ok || got != uint32(slot) {
			t.Fatalf("slot %d is found: %t, as %d", slot, ok, got)
		}
	}
	if len(x.cells) > 16*indexLeast {
		t.Errorf("%d cells for %d slots", len(x.cells), len(rows))
	}
}
