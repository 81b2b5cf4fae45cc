package transfer

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"drover/internal/errs"
)

// keeper is a target that keeps what it was handed.
type keeper struct {
	counting
	content []Content
}

func (k *keeper) Open(Space) (PageWriter, error) {
	k.open++
	return keeperPages{countingFile{&k.counting}, k}, nil
}

type keeperPages struct {
	countingFile
	k *keeper
}

func (p keeperPages) Entry(_ uint64, _ uint32, content []Content) error {
	p.k.content = append(p.k.content, content...)
	return nil
}

// putFrame is a PUT of one page full of the byte, as a sender with an all-zero key makes it.
func putFrame(t testing.TB, slot uint32, content byte) []byte {
	t.Helper()
	d, err := newDigester(make([]byte, keySize))
	if err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte{content}, PageSize)
	return plainFrame(fPut, putOf(d, []put{{slot: slot, mask: allPieces}}, page))
}

// zeroKey is HELLO of a sender with an all-zero key.
var zeroKey = plainFrame(fHello, []byte(`{"version":5,"key":"AAAAAAAAAAAAAAAAAAAAAA=="}`))

// numbered numbers frames, HELLO the first, and puts them together.
func numbered(frames ...[]byte) []byte {
	var all []byte
	for i, f := range frames {
		all = append(all, number(bytes.Clone(f), uint64(i))...)
	}
	return all
}

func TestAPageHandedOverStaysUntilTheReceiverIsClosed(t *testing.T) {
	in := numbered(
		zeroKey, putFrame(t, 1, 'a'), putFrame(t, 2, 'b'), putFrame(t, 2, 'c'), // not mapped: may be written again
		plainFrame(fSpace, make([]byte, 9)), plainFrame(fMap, []byte{0, 1, 1, 1 << 2, 2}), // page 0 is slot 1
		putFrame(t, 2, 'd'), putFrame(t, 1, 'e'),
	)
	k := &keeper{}
	r := NewReceiver(k)
	defer r.Close()
	_, err := r.Serve(context.Background(), scripted{bytes.NewReader(in)})
	if !errors.Is(err, ErrProtocol) {
		t.Errorf("a slot was written after it was mapped: %v", err)
	}
	for _, c := range append(k.content, Content{r.applier.store, 2, 1}) {
		want := map[uint32]byte{1: 'a', 2: 'd'}[c.first] // what was handed over, and what was not and could be written
		if got, err := c.Bytes(); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{want}, PageSize)) {
			t.Errorf("slot %d is not full of %q: %v", c.first, want, err)
		}
	}
	if len(k.content) != 1 {
		t.Errorf("%d runs were handed over", len(k.content))
	}
}

func noMore(uint32) error { return errs.New(errs.Refused, "full") }

// TestPagesAreTheSameWhereverTheyStand: slots 1 and 2 in memory, 3 and 4 on a disk, each patched from each.
func TestPagesAreTheSameWhereverTheyStand(t *testing.T) {
	s, err := NewStore(4, Room{Memory: 2, More: noMore, Spill: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, err := newDigester(make([]byte, keySize))
	if err != nil {
		t.Fatal(err)
	}
	page := func(content byte) []byte { return bytes.Repeat([]byte{content}, PageSize) }
	for slot := uint32(1); slot <= 4; slot++ {
		p := page(byte('a' + slot))
		if err := s.put(slot, []Digest{d.of(p)}, p); err != nil {
			t.Fatal(err)
		}
	}
	if s.Spilled() != 2 {
		t.Errorf("%d pages are on the disk", s.Spilled())
	}
	for slot := uint32(1); slot <= 4; slot++ {
		for base := uint32(0); base <= 4; base++ {
			if base == slot {
				continue
			}
			piece := bytes.Repeat([]byte{byte(16*slot + base)}, pieceSize)
			want, err := s.run(base, 1)
			if err != nil {
				t.Fatal(err)
			}
			want = bytes.Clone(want)
			copy(want[3*pieceSize:], piece)
			sum, err := s.patch(slot, base, 1<<3, piece, d)
			if err != nil || sum != d.of(want) {
				t.Errorf("slot %d from slot %d: another digest, %v", slot, base, err)
			}
			if got, err := s.run(slot, 1); err != nil || !bytes.Equal(got, want) {
				t.Errorf("slot %d from slot %d: another page, %v", slot, base, err)
			}
		}
	}
	all, err := s.run(1, 4)
	if err != nil {
		t.Fatal(err)
	}
	all = bytes.Clone(all)
	for slot := range uint32(4) {
		if one, err := s.run(slot+1, 1); err != nil || !bytes.Equal(one, all[slot*PageSize:][:PageSize]) {
			t.Errorf("slot %d is another in a run: %v", slot+1, err)
		}
	}
}

func TestAStoreAsksForRoomAsItGrows(t *testing.T) {
	var asked []uint32
	full := errs.New(errs.Refused, "full")
	s, err := NewStore(3*moreSlots, Room{Memory: 10, More: func(slots uint32) error {
		if asked = append(asked, slots); len(asked) > 2 {
			return full
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	page := make([]byte, PageSize)
	slot := uint32(1)
	for ; err == nil; slot++ {
		err = s.put(slot, []Digest{{}}, page)
	}
	if !errors.Is(err, full) || slot-2 != 2*moreSlots || !slices.Equal(asked, []uint32{moreSlots, 2 * moreSlots, 3 * moreSlots}) {
		t.Errorf("after slot %d: %v; asked for %d", slot-2, err, asked)
	}
	if err := s.put(5, []Digest{{}}, page); err != nil {
		t.Errorf("a slot that has its room: %v", err)
	}
}

func TestAStoreWithoutADiskIsNotMade(t *testing.T) {
	if _, err := NewStore(10, Room{Memory: 2, More: noMore, Spill: "/none"}); errs.KindOf(err) != errs.Failed {
		t.Errorf("got %v", err)
	}
}

// BenchmarkStore writes pages into a store, in memory and on a disk.
func BenchmarkStore(b *testing.B) {
	const slots = 1 << 16
	for _, c := range []struct {
		what string
		room Room
	}{{"memory", Room{}}, {"disk", Room{More: noMore, Spill: b.TempDir()}}} {
		b.Run(c.what, func(b *testing.B) {
			s, err := NewStore(slots, c.room)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			page := bytes.Repeat([]byte{'a'}, PageSize)
			b.SetBytes(PageSize)
			for n := uint32(0); b.Loop(); n++ {
				if err := s.put(n%slots+1, []Digest{{}}, page); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestARunOfSlotsThatAreInPartNewReadsAsItWasWritten(t *testing.T) {
	of := func(contents string) (pages []byte) {
		for _, c := range []byte(contents) {
			pages = append(pages, bytes.Repeat([]byte{c}, PageSize)...)
		}
		return pages
	}
	for inMemory := range uint32(9) { // the others are on a disk
		s, err := NewStore(8, Room{Memory: inMemory, More: noMore, Spill: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, put := range []struct {
			first    uint32
			contents string
		}{{1, "abc"}, {2, "def"}, {1, "g"}, {5, "hi"}} {
			if err := s.put(put.first, make([]Digest, len(put.contents)), of(put.contents)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.run(1, 6); err != nil || !bytes.Equal(got, of("gdefhi")) {
			t.Errorf("%d in memory: the slots hold something else, %v", inMemory, err)
		}
		if err := s.put(8, make([]Digest, 1), of("j")); !errors.Is(err, ErrProtocol) {
			t.Errorf("a gap: %v", err)
		}
		if err := s.put(7, make([]Digest, 3), of("klm")); !errors.Is(err, ErrProtocol) {
			t.Errorf("more slots than there are: %v", err)
		}
	}
}
