package transfer

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// keeper is a target that keeps the pages it was handed, not copies.
type keeper struct {
	counting
	pages [][]byte
}

func (k *keeper) Open(Space) (PageWriter, error) {
	k.open++
	return keeperPages{countingFile{&k.counting}, k}, nil
}

type keeperPages struct {
	countingFile
	k *keeper
}

func (p keeperPages) Entry(_ uint64, _ uint32, pages [][]byte) error {
	p.k.pages = append(p.k.pages, pages...)
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
var zeroKey = plainFrame(fHello, []byte(`{"version":4,"key":"AAAAAAAAAAAAAAAAAAAAAA=="}`))

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
	if len(k.pages) != 1 || !bytes.Equal(k.pages[0], bytes.Repeat([]byte{'a'}, PageSize)) {
		t.Error("the page that was handed over has changed")
	}
	if !bytes.Equal(r.applier.store.run(2, 1), bytes.Repeat([]byte{'d'}, PageSize)) {
		t.Error("the slot that was not mapped could not be written")
	}
}

func TestARunOfSlotsThatAreInPartNewReadsAsItWasWritten(t *testing.T) {
	s, err := NewStore(8)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	of := func(contents string) (pages []byte) {
		for _, c := range []byte(contents) {
			pages = append(pages, bytes.Repeat([]byte{c}, PageSize)...)
		}
		return pages
	}
	for _, put := range []struct {
		first    uint32
		contents string
	}{{1, "abc"}, {2, "def"}, {1, "g"}, {5, "hi"}} {
		if err := s.put(put.first, make([]Digest, len(put.contents)), of(put.contents)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(s.run(1, 6), of("gdefhi")) {
		t.Error("the slots hold something else")
	}
	if err := s.put(8, make([]Digest, 1), of("j")); !errors.Is(err, ErrProtocol) {
		t.Errorf("a gap: %v", err)
	}
	if err := s.put(7, make([]Digest, 3), of("klm")); !errors.Is(err, ErrProtocol) {
		t.Errorf("more slots than there are: %v", err)
	}
}
