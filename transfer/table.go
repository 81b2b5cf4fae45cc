package transfer

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
	slots  map[Digest]uint32
	sums   []Digest // by slot
	uses   []uint32 // by slot: how many addresses hold it
	left   []uint32 // by slot: the round in which the last address left it, 0 if none has
	listed []bool   // by slot: stands in free or dying
	free   []uint32 // emptied before this round; a slot here may be in use again, or have been
	dying  []uint32 // emptied in this round; likewise
	round  uint32   // under way, from 1
}

func newPageTable(limit uint32) *pageTable {
	return &pageTable{
		limit: limit, next: 1, round: 1, spaces: map[Space]map[uint64]*region{}, slots: map[Digest]uint32{},
		sums: make([]Digest, 1), uses: make([]uint32, 1), left: make([]uint32, 1), listed: make([]bool, 1),
	}
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
}

// hold notes that the address now holds the page with that digest.
func (t *pageTable) hold(s Space, addr uint64, sum Digest) (h holding, err error) {
	if sum != zeroDigest {
		var ok bool
		if h.slot, ok = t.slots[sum]; !ok {
			if h.slot, err = t.take(); err != nil {
				return h, err
			}
			t.slots[sum], t.sums[h.slot], h.put = h.slot, sum, true
		}
		t.uses[h.slot]++
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
		if t.uses[slot] == 0 && t.left[slot] == t.round { // its content came back, and went again
			t.dying = append(t.dying, slot)
			continue
		}
		t.listed[slot] = false
		if t.uses[slot] == 0 {
			delete(t.slots, t.sums[slot])
			return slot, nil
		}
	}
	if t.next > t.limit {
		return 0, ErrSlots
	}
	t.next++
	t.sums = append(t.sums, Digest{})
	t.uses = append(t.uses, 0)
	t.left = append(t.left, 0)
	t.listed = append(t.listed, false)
	return t.next - 1, nil
}

// leave notes that one address less holds a slot.
func (t *pageTable) leave(slot uint32) {
	if slot == 0 {
		return
	}
	if t.uses[slot]--; t.uses[slot] > 0 {
		return
	}
	t.left[slot] = t.round
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
	t.free = append(t.free, t.dying...)
	t.dying = nil
	t.round++
}
