package transfer

import (
	"errors"
	"os"
	"unsafe"

	"drover/internal/errs"
)

// Store is the target's slots, in a file in memory that has no name: the kernel fills it in as slots are written, another process
// can map it (File), and it is given back when nobody has it any more. It is used by one goroutine; nothing read from it may be
// used after Close.
type Store struct {
	slots uint32
	file  *os.File
	pages []byte   // slot n at n*PageSize; slot 0 stays empty
	sums  []Digest // by slot, up to the highest written
	is    []slotIs // likewise
}

// slotIs says how far a slot is. What was mapped is never written again, whatever a sender asks for: the target's writers
// may have kept it (PageWriter.Entry).
type slotIs uint8

const (
	unwritten slotIs = iota
	written
	mapped
)

// NewStore reserves addresses, not memory, for slots 1 to slots.
func NewStore(slots uint32) (*Store, error) {
	file, pages, err := sharedSlab("drover-store", (int(slots)+1)*PageSize)
	if err != nil {
		return nil, errs.New(errs.Failed, "reserve a store of %d pages: %w", slots, err)
	}
	return &Store{slots: slots, file: file, pages: pages}, nil
}

// File is the store as a file, the Store's own: slot n at n*PageSize.
func (s *Store) File() *os.File { return s.file }

// Offset is where in File a run of pages begins that PageWriter.Entry was given; ok is false for pages of zeros, which stand nowhere.
func (s *Store) Offset(run []byte) (at uint64, ok bool) {
	first, p := uintptr(unsafe.Pointer(unsafe.SliceData(s.pages))), uintptr(unsafe.Pointer(unsafe.SliceData(run)))
	if p < first || p >= first+uintptr(len(s.pages)) {
		return 0, false
	}
	return uint64(p - first), true
}

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
	at := int(first) * PageSize
	copy(s.pages[at:], pages[:fresh])
	return s.begin(at+fresh, pages[fresh:])
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
	to, from := s.page(slot), s.page(base)
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
	return sum, nil
}

// ready makes sure that a slot may be written. Slots grow one by one: one more than one beyond the highest is refused, so
// that what is kept beside the pages stays in proportion to them.
func (s *Store) ready(slot uint32) error {
	if slot == 0 || slot > s.slots || int(slot) > max(len(s.sums), 1) {
		return errs.New(errs.Failed, "slot %d is not one of 1 to %d, or leaves a gap: %w", slot, s.slots, ErrProtocol)
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

// run is the content of n slots from first.
func (s *Store) run(first uint32, n int) []byte {
	return s.pages[int(first)*PageSize : (int(first)+n)*PageSize]
}

func (s *Store) page(slot uint32) []byte { return s.run(slot, 1) }

// Used is how many slots have been written.
func (s *Store) Used() int { return max(0, len(s.sums)-1) }

// Close gives the memory back. It may be called again.
func (s *Store) Close() error {
	if s.pages == nil {
		return nil
	}
	err := errors.Join(freeSlab(s.pages), s.file.Close())
	s.pages, s.sums, s.is = nil, nil, nil
	if err != nil {
		return errs.New(errs.Failed, "free a store: %w", err)
	}
	return nil
}
