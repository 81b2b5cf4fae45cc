package transfer

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// TestNoSlotOfTheStockIsWrittenThatIsNeeded: whatever the target has and the tree does, a slot is written only if no address has held it
// in the round under way, what is found is what was said, and no content stands in two slots.
func TestNoSlotOfTheStockIsWrittenThatIsNeeded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pages = 8
		table, err := newPageTable(4 * pages)
		if err != nil {
			t.Fatal(err)
		}
		defer table.close()
		sumOf := func(content uint64) (sum Digest) {
			binary.LittleEndian.PutUint64(sum[:], content)
			return sum
		}
		content := rapid.Uint64Range(0, 12)
		is := map[uint32]uint64{} // content by slot
		for _, c := range rapid.SliceOfN(content, 0, 2*pages).Draw(t, "stock") {
			if err := table.keepsStock(sumOf(c)); err != nil {
				t.Fatal(err)
			}
			is[table.next-1] = c
		}
		table.stock.room = rapid.Uint32Range(0, 4*pages).Draw(t, "room")
		held, used := map[uint64]uint32{}, map[uint32]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			if rapid.Uint64Range(0, 5).Draw(t, "step") == 0 {
				table.endRound()
				clear(used)
				for _, slot := range held {
					used[slot] = slot != 0
				}
				continue
			}
			if len(used) >= 2*pages { // the table may rightly be full
				continue
			}
			page, c := rapid.Uint64Range(0, pages-1).Draw(t, "page"), content.Draw(t, "content")
			h, err := table.hold(Space{}, page*PageSize, sumOf(c))
			if err != nil {
				t.Fatal(err)
			}
			was, there := is[h.slot]
			switch {
			case h.put && used[h.slot]:
				t.Fatalf("slot %d is written in a round in which it was held", h.slot)
			case h.put && h.met, h.slot != 0 && !h.put && (!there || was != c):
				t.Fatalf("content %d is taken for what is in slot %d: %d, %t", c, h.slot, was, there)
			case h.slot == 0 && c != 0:
				t.Fatalf("content %d is taken for zeros", c)
			}
			is[h.slot], held[page], used[h.slot] = c, h.slot, h.slot != 0
		}
	})
}
