package transfer

import (
	"errors"
	"os"

	"drover/internal/errs"
	"drover/internal/sealed"
)

// Store is the target's slots, in a file in memory that has no name: the kernel fills it in as slots are written, another process
// can map it (Files), and it is given back when nobody has it any more. What has no room in memory stands in a sealed file on a disk.
// It is used by one goroutine; nothing read from it may be used after Close.
type Store struct {
	slots uint32
	room  Room
	file  *os.File
	pages []byte        // slot n at n*PageSize, to edge; slot 0 stays empty
	edge  uint32        // the highest slot that may ever stand in memory
	spill *sealed.Pages // the slots above, from its page 0; nil if none may be on a disk
	stock int           // slots from 1 on that were filled from an earlier visit
	sums  []Digest      // by slot, up to the highest written
	is    []slotIs      // likewise
	buf   []byte        // of a run that does not stand in memory
}

// Room is where a store's pages may stand. The zero value has all of them in memory.
type Room struct {
	// Memory slots stand in memory, 1 to Memory. More is asked for room there for slots 1 to slots when a higher one comes: for moreSlots
	// at a time, so that some may never be used. nil grants all.
	Memory uint32
	More   func(slots uint32) error
	// Spill is a directory on a disk, for a sealed file with all slots from the first for which More has refused room. With "" its error
	// ends the stream.
	Spill string
}

// moreSlots are 64 MiB.
const moreSlots = 1 << 14

// slotIs says how far a slot is. What was mapped is never written again, whatever a sender asks for: the target's writers
// may have kept it (PageWriter.Entry).
type slotIs uint8

const (
	unwritten slotIs = iota
	written
	mapped
)

// NewStore reserves addresses, not memory, for slots 1 to slots.
func NewStore(slots uint32, room Room) (*Store, error) {
	if room.More == nil {
		room.Memory, room.Spill = slots, ""
	}
	s := &Store{slots: slots, room: room, edge: slots}
	var err error
	if s.file, s.pages, err = sharedSlab("drover-store", (int(slots)+1)*PageSize); err != nil {
		return nil, errs.New(errs.Failed, "reserve a store of %d pages: %w", slots, err)
	}
	if room.Spill != "" {
		if s.spill, err = sealed.Create(room.Spill, slots); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Files are what another process needs to read the store, once nothing is written to it any more; they stay the Store's. What
// Content.Offset says lies in pages, and what lies beyond its end in spilled, which is nil if nothing may.
func (s *Store) Files() (pages *os.File, spilled *sealed.Pages) { return s.file, s.spill }

// Spilled is how many pages have been written that stand on a disk.
func (s *Store) Spilled() int { return max(0, s.Used()-int(s.edge)) }

// put writes pages, whose digests the caller has computed, to the slots from first.
func (s *Store) put(first uint32, sums []Digest, pages []byte) error {
	fresh := len(pages)
	for i, sum := range sums {
		slot := first + uint32(i)
		if !s.holds(slot) {
			fresh = min(fresh, i*PageSize)
		}
		if err := s.ready(slot); err != nil {
			return err
		}
		s.sums[slot], s.is[slot] = sum, written
	}
	here := s.here(first, len(sums)) * PageSize
	fresh = min(fresh, here)
	at := int(first) * PageSize
	copy(s.pages[at:], pages[:fresh])
	if err := s.begin(at+fresh, pages[fresh:here]); err != nil {
		return err
	}
	return s.toDisk(first+uint32(here/PageSize), pages[here:])
}

// toDisk writes slots that stand on a disk.
func (s *Store) toDisk(first uint32, pages []byte) error {
	for ; len(pages) > 0; first, pages = first+1, pages[PageSize:] {
		if err := s.spill.Write(first-s.edge-1, pages[:PageSize]); err != nil {
			return err
		}
	}
	return nil
}

// here is how many of n slots from first stand in memory; the others follow them.
func (s *Store) here(first uint32, n int) int {
	return min(n, int(s.edge)+1-min(int(first), int(s.edge)+1))
}

// begin writes slots that were never written. It writes to the file: the kernel then copies into pages that it need not clear
// first, and there is no fault for each, which is a quarter of a first round's system time (BenchmarkRound/s2).
func (s *Store) begin(at int, pages []byte) error {
	if len(pages) == 0 {
		return nil
	}
	if _, err := s.file.WriteAt(pages, int64(at)); err != nil {
		return errs.New(errs.Failed, "keep %d pages in the store: %w", len(pages)/PageSize, err).
			WithNext("free memory on this host: the store takes as much as the tree")
	}
	return nil
}

// patch writes a page that is base's but for some pieces (see pieceSize), given in their order and named by the bits of
// mask, and returns its digest.
func (s *Store) patch(slot, base uint32, mask uint8, pieces []byte, d *digester) (sum Digest, err error) {
	if err := s.ready(slot); err != nil {
		return sum, err
	}
	if slot == base || !s.holds(base) {
		return sum, protocol("slot %d is patched from slot %d, which is itself or was never written", slot, base)
	}
	from, err := s.run(base, 1)
	if err != nil {
		return sum, err
	}
	to := s.scratch(slot)
	for at := 0; at < PageSize; at += pieceSize {
		if mask&1 == 0 {
			copy(to[at:], from[at:at+pieceSize])
		} else {
			copy(to[at:], pieces[:pieceSize])
			pieces = pieces[pieceSize:]
		}
		mask >>= 1
	}
	sum = d.of(to)
	s.sums[slot], s.is[slot] = sum, written
	if slot > s.edge {
		err = s.toDisk(slot, to)
	}
	return sum, err
}

// scratch is where a slot's new content may be put together.
func (s *Store) scratch(slot uint32) []byte {
	if slot <= s.edge {
		return s.page(slot)
	}
	return s.buffer()[PageSize : 2*PageSize] // the first page may be what it is made of
}

func (s *Store) buffer() []byte {
	if s.buf == nil {
		s.buf = make([]byte, MaxRun*PageSize)
	}
	return s.buf
}

// ready makes sure that a slot may be written. Slots grow one by one: one more than one beyond the highest is refused, so
// that what is kept beside the pages stays in proportion to them.
func (s *Store) ready(slot uint32) error {
	if slot == 0 || slot > s.slots || int(slot) > max(len(s.sums), 1) {
		return errs.New(errs.Failed, "slot %d is not one of 1 to %d, or leaves a gap: %w", slot, s.slots, ErrProtocol)
	}
	if slot > s.room.Memory && slot <= s.edge {
		if err := s.grow(slot); err != nil {
			return err
		}
	}
	for int(slot) >= len(s.sums) {
		s.sums = append(s.sums, Digest{})
		s.is = append(s.is, unwritten)
	}
	if s.is[slot] == mapped {
		return protocol("slot %d is written after it was mapped", slot)
	}
	return nil
}

// grow finds room for a slot: in memory, or from it on on a disk.
func (s *Store) grow(slot uint32) error {
	want := min(s.slots, (slot+moreSlots-1)/moreSlots*moreSlots)
	err := s.room.More(want)
	switch {
	case err == nil:
		s.room.Memory = want
		return nil
	case s.spill == nil || errs.KindOf(err) != errs.Refused:
		return err
	}
	s.edge = slot - 1
	if err := s.file.Truncate(int64(slot) * PageSize); err != nil { // nothing has been written beyond
		return errs.New(errs.Failed, "end a store's memory at %d pages: %w", s.edge, err)
	}
	return nil
}

// holds says whether a slot has been written; slot 0 always has.
func (s *Store) holds(slot uint32) bool {
	return slot == 0 || int(slot) < len(s.is) && s.is[slot] != unwritten
}

// keep makes sure that a slot, which has been written, stays as it is until Close.
func (s *Store) keep(slot uint32) {
	if slot != 0 {
		s.is[slot] = mapped
	}
}

func (s *Store) digest(slot uint32) Digest {
	if slot == 0 {
		return zeroDigest
	}
	return s.sums[slot]
}

// run is the content of n slots from first, at most MaxRun, until the next call.
func (s *Store) run(first uint32, n int) ([]byte, error) {
	here := s.here(first, n)
	if here == n {
		return s.pages[int(first)*PageSize:][:n*PageSize], nil
	}
	b := s.buffer()[:n*PageSize]
	if here > 0 {
		copy(b, s.pages[int(first)*PageSize:][:here*PageSize])
	}
	return b, s.spill.Read(first+uint32(here)-s.edge-1, b[here*PageSize:])
}

// page is where a slot stands in memory.
func (s *Store) page(slot uint32) []byte { return s.pages[int(slot)*PageSize:][:PageSize] }

// Used is how many slots have been written.
func (s *Store) Used() int { return max(0, len(s.sums)-1) }

// Close gives the memory back, and the room on the disk. It may be called again.
func (s *Store) Close() error {
	var err error
	if s.spill != nil {
		err = s.spill.Close()
	}
	err = errors.Join(err, freeSlab(s.pages))
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	s.file, s.pages, s.spill, s.sums, s.is, s.buf = nil, nil, nil, nil, nil, nil
	if err != nil {
		return errs.New(errs.Failed, "free a store: %w", err)
	}
	return nil
}
