package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
)

// visitor is a target that keeps what it was handed and begins with a store that has pages of an earlier visit.
type visitor struct {
	counting
	limits Limits
	pages  map[uint64][]byte // of the one space
}

func (v *visitor) Limits() Limits { return v.limits }

func (v *visitor) Open(Space) (PageWriter, error) {
	v.open++
	v.pages = map[uint64][]byte{}
	return visitorPages{countingFile{&v.counting}, v}, nil
}

type visitorPages struct {
	countingFile
	v *visitor
}

func (p visitorPages) Entry(addr uint64, _ uint32, content []Content) error {
	for _, c := range content {
		b, err := c.Bytes()
		if err != nil {
			return err
		}
		for page := range slices.Chunk(b, PageSize) {
			p.v.pages[addr] = bytes.Clone(page)
			addr += PageSize
		}
	}
	return nil
}

// memoryOf is so many pages that do not compress, drawn by seed.
func memoryOf(seed byte, pages int) []byte {
	data := make([]byte, pages*PageSize)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// visit sends memory as one round and a final pass to a target with those limits that has kept pages, and returns what the sender said of it
// and what the target keeps this time. With abort the final pass is not made.
func visit(t *testing.T, limits Limits, kept *Kept, memory []byte, abort bool) (RoundReport, Progress, *Kept) {
	t.Helper()
	v := &visitor{limits: limits}
	r := NewReceiver(v)
	stock := 0
	if kept != nil {
		had := kept.Pages()
		store, err := r.Store()
		if err != nil {
			t.Fatal(err)
		}
		if stock, err = store.Stock(t.Context(), kept); err != nil || stock > had || kept.file != nil {
			t.Fatalf("%d of %d pages are in the store: %v", stock, had, err)
		}
	}
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := r.Serve(context.Background(), far)
		done <- err
	}()
	s, err := NewSender(t.Context(), near, SenderConfig{Compression: "none"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	space := Space{1, 1}
	for at := 0; at < len(memory); at += MaxRun * PageSize {
		if err := s.Offer(space, uint64(at), memory[at:min(len(memory), at+MaxRun*PageSize)]); err != nil {
			t.Fatal(err)
		}
	}
	round, err := s.EndRound(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !abort {
		if err := s.MapHole(space, 0, 0, uint64(len(memory)/PageSize)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(memory); at += PageSize {
			if !bytes.Equal(v.pages[uint64(at)], memory[at:at+PageSize]) {
				t.Fatalf("page %#x arrived as something else", at)
			}
		}
	}
	s.Close()
	again, err := r.CloseAndKeep()
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Progress(); p.PagesKept != uint64(stock) {
		t.Errorf("the target has %d pages, the source heard of %d", stock, p.PagesKept)
	}
	return round, s.Progress(), again
}

// TestWhatAnAbortedStreamBroughtIsNotSentAgain: the second stream's first round is a few bytes a page, and what has changed is sent.
func TestWhatAnAbortedStreamBroughtIsNotSentAgain(t *testing.T) {
	const pages, changed = 3 * haveMost, 7
	memory := memoryOf(1, pages)
	copy(memory[5*PageSize:], zeros[:2*PageSize])                              // zero pages are no content
	copy(memory[100*PageSize:200*PageSize], memory[200*PageSize:300*PageSize]) // and what is there twice is one
	distinct := uint64(pages - 2 - 100)
	first, _, kept := visit(t, Limits{}, nil, memory, true)
	if first.PagesSent != distinct || first.PagesFound != 0 || kept.Pages() != int(distinct) {
		t.Fatalf("the first one: %+v, %d are kept", first, kept.Pages())
	}
	for i := range changed {
		memory[(1000+i)*PageSize]++
	}
	second, p, kept := visit(t, Limits{}, kept, memory, false)
	defer kept.Close()
	if second.PagesSent != changed || second.PagesFound != distinct-changed || p.PagesFound != second.PagesFound {
		t.Errorf("the second one: %+v", second)
	}
	if most := uint64(changed*(PageSize+100) + 1000); second.WireBytes > most {
		t.Errorf("its first round took %d bytes, at most %d are right; the first stream's took %d", second.WireBytes, most, first.WireBytes)
	}
	if kept.Pages() != int(distinct)+changed {
		t.Errorf("%d pages are kept after it", kept.Pages())
	}
}

// TestAPageThatWasFoundAndThenChangesGoesAsAPatch: the source has never sent it, and knows it nevertheless.
func TestAPageThatWasFoundAndThenChangesGoesAsAPatch(t *testing.T) {
	memory := memoryOf(2, 64)
	_, _, kept := visit(t, Limits{}, nil, memory, true)
	r := NewReceiver(&visitor{})
	defer r.Close()
	store, err := r.Store()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Stock(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	go r.Serve(context.Background(), far)
	s, err := NewSender(t.Context(), near, SenderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if err := s.Offer(Space{1, 1}, 0, memory); err != nil {
			t.Fatal(err)
		}
		if _, err := s.EndRound(t.Context()); err != nil {
			t.Fatal(err)
		}
		memory[9*PageSize]++
	}
	if p := s.Progress(); p.PagesFound != 64 || p.PagesSent != 1 || p.PagesPatched != 1 {
		t.Errorf("got %+v", p)
	}
}

// TestAStoreTakesNoMoreForWhatWasKept: a tree that has nothing in common with what was kept takes the slots that it would have taken
// without; a limit that it fits into by itself is enough.
func TestAStoreTakesNoMoreForWhatWasKept(t *testing.T) {
	const pages = 3000
	for _, common := range []int{0, 1000, pages} {
		_, _, kept := visit(t, Limits{}, nil, memoryOf(3, pages), true)
		memory := append(memoryOf(4, pages-common), memoryOf(3, pages)[:common*PageSize]...)
		limits := Limits{Slots: 3 * pages, Room: Room{Memory: pages, More: func(slots uint32) error {
			t.Errorf("with %d pages in common %d slots are asked for", common, slots)
			return nil
		}}}
		round, _, again := visit(t, limits, kept, memory, false)
		if again.Pages() > pages || common == pages && round.PagesSent != 0 {
			t.Errorf("with %d pages in common %d stand there in the end: %+v", common, again.Pages(), round)
		}
		again.Close()
	}
	// One that was promised less than was kept begins with less of it.
	_, _, kept := visit(t, Limits{}, nil, memoryOf(3, pages), true)
	_, p, again := visit(t, Limits{Room: Room{Memory: 10, More: func(uint32) error { return nil }}}, kept, memoryOf(3, pages), false)
	if p.PagesKept != 10 || p.PagesFound != 10 {
		t.Errorf("got %+v", p)
	}
	again.Close()
}

// TestWhatWasKeptIsNotBelieved: the file of a store that was closed is written to by somebody who still has it, before the pages are
// copied and after.
func TestWhatWasKeptIsNotBelieved(t *testing.T) {
	memory := memoryOf(5, 600)
	_, _, kept := visit(t, Limits{}, nil, memory, true)
	if _, err := kept.file.WriteAt(memoryOf(6, 3), kept.first+10*PageSize); err != nil {
		t.Fatal(err)
	}
	if err := kept.file.Truncate(kept.first + 500*PageSize); err != nil { // the rest cannot be read
		t.Fatal(err)
	}
	store, err := NewStore(1000, Room{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if n, err := store.Stock(t.Context(), kept); err == nil || n == 0 || n > 500 {
		t.Errorf("%d pages of 500: %v", n, err)
	}

	_, _, kept = visit(t, Limits{}, nil, memory, true)
	if _, err := kept.file.WriteAt(memoryOf(6, 3), kept.first+10*PageSize); err != nil {
		t.Fatal(err)
	}
	_, p, again := visit(t, Limits{}, kept, memory, false) // which compares what arrives
	if p.PagesKept != 600 || p.PagesFound != 597 {
		t.Errorf("got %+v", p)
	}
	again.Close()
}

// TestATreeThatLeavesIsKept, each content once, zero pages not, and no more than there is room for.
func TestATreeThatLeavesIsKept(t *testing.T) {
	memory := memoryOf(7, 1000)
	copy(memory[3*PageSize:], zeros[:PageSize])
	copy(memory[500*PageSize:], memory[:300*PageSize])
	full := errors.New("full")
	for most, want := range map[uint32]int{1000: 1000 - 2 - 299, 200: 200} {
		k, err := NewKeeping(most, Room{Memory: 400, More: func(uint32) error { return full }})
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(memory); at += 100 * PageSize {
			if err = k.Add(memory[at : at+100*PageSize]); err != nil {
				break
			}
		}
		if most == 1000 {
			if !errors.Is(err, full) {
				t.Errorf("with room for 400: %v", err)
			}
			want = 400
		} else if !errors.Is(err, ErrSlots) {
			t.Errorf("at most %d: %v", most, err)
		}
		kept, err := k.Close()
		if err != nil || kept.Pages() < want-100 || kept.Pages() > want {
			t.Fatalf("at most %d: %d are kept, %v", most, kept.Pages(), err)
		}
		_, p, again := visit(t, Limits{}, kept, memory, false)
		if int(p.PagesFound) < want-100 || p.PagesFound > p.PagesKept {
			t.Errorf("got %+v", p)
		}
		again.Close()
	}
	k, err := NewKeeping(10, Room{})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Add(zeros[:]); err != nil {
		t.Fatal(err)
	}
	if kept, err := k.Close(); kept != nil || err != nil {
		t.Errorf("of nothing is kept %v, %v", kept, err)
	}
}

// BenchmarkKept is what 256 MiB cost: to be put aside when a tree leaves, and when it comes again to be copied and told of.
func BenchmarkKept(b *testing.B) {
	const pages = 1 << 16
	memory := memoryOf(1, pages)
	aside := func() *Kept {
		k, err := NewKeeping(pages, Room{})
		if err != nil {
			b.Fatal(err)
		}
		for at := 0; at < len(memory); at += MaxRun * PageSize {
			if err := k.Add(memory[at : at+MaxRun*PageSize]); err != nil {
				b.Fatal(err)
			}
		}
		kept, err := k.Close()
		if err != nil {
			b.Fatal(err)
		}
		return kept
	}
	b.Run("aside", func(b *testing.B) {
		b.SetBytes(pages * PageSize)
		for b.Loop() {
			aside().Close()
		}
	})
	b.Run("again", func(b *testing.B) {
		b.SetBytes(pages * PageSize)
		for b.Loop() {
			b.StopTimer()
			kept := aside()
			r := NewReceiver(&visitor{limits: Limits{Slots: pages}})
			b.StartTimer()
			store, err := r.Store()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := store.Stock(b.Context(), kept); err != nil {
				b.Fatal(err)
			}
			if r.applier.digest, err = newDigester(newKey()); err != nil {
				b.Fatal(err)
			}
			if err := r.sayStock(io.Discard); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			r.Close()
			b.StartTimer()
		}
	})
}
