package transfer

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// TestNoSlotIsOverwrittenWhileItIsNeeded: whatever a tree does, a slot is written only if no address has held it in the
// round under way; so in the final pass, a round that maps each address once, never after it was mapped.
func TestNoSlotIsOverwrittenWhileItIsNeeded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const spaces, pages = 2, 8
		table, err := newPageTable(2 * spaces * pages)
		if err != nil {
			t.Fatal(err)
		}
		defer table.close()
		held := map[Space]map[uint64]uint32{} // what stands where
		used := map[uint32]bool{}             // slots that an address has held in this round
		hold := func(s Space, page uint64, content uint64) uint32 {
			var sum Digest
			binary.LittleEndian.PutUint64(sum[:], content)
			h, err := table.hold(s, page*PageSize, sum)
			if err != nil {
				t.Fatal(err)
			}
			slot := h.slot
			if h.put && used[slot] {
				t.Fatalf("slot %d is written in a round in which it was held", slot)
			}
			if before, had := held[s][page]; had != h.had || before != h.base {
				t.Fatalf("page %d of %s was in slot %d, not in %d", page, s, before, h.base)
			}
			if held[s] == nil {
				held[s] = map[uint64]uint32{}
			}
			held[s][page] = slot
			used[slot] = slot != 0
			return slot
		}
		draw := func() (Space, uint64) {
			return Space{1, rapid.Uint64Range(1, spaces).Draw(t, "space")}, rapid.Uint64Range(0, pages-1).Draw(t, "page")
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"hold", "hold", "hold", "hold", "round", "drop"}).Draw(t, "step") {
			case "hold":
				s, page := draw()
				if len(used) < spaces*pages { // else the table may rightly be full
					hold(s, page, rapid.Uint64Range(0, 12).Draw(t, "content"))
				}
			case "round":
				table.endRound()
				clear(used)
				for _, pages := range held {
					for _, slot := range pages {
						used[slot] = slot != 0
					}
				}
			case "drop":
				s, _ := draw()
				table.drop(s)
				delete(held, s)
			}
		}
		table.endRound()
		clear(used)
		for id := range uint64(spaces) {
			for page := range uint64(pages) {
				hold(Space{1, id + 1}, page, rapid.Uint64Range(0, 30).Draw(t, "content"))
			}
		}
		for s, pages := range held {
			for page, slot := range pages {
				if now, _ := table.slotAt(s, page*PageSize); now != slot {
					t.Fatalf("page %d of %s stands in slot %d, not in %d", page, s, now, slot)
				}
			}
		}
	})
}
