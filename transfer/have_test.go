package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"golang.org/x/time/rate"
)

// haves are frames that a target says after its STATE.
func haves(all ...have) (frames []byte) {
	for _, h := range all {
		frames = append(frames, plainFrame(fHave, h.encode())...)
	}
	return frames
}

// greetWith opens a stream to a target that has said everything already.
func greetWith(t testing.TB, said []byte) (*Sender, error) {
	t.Helper()
	in := append(plainFrame(fState, state{slots: 100}.encode()), said...)
	s, err := NewSender(t.Context(), scripted{bytes.NewReader(in)}, SenderConfig{})
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func TestATargetThatSaysWrongThingsOfWhatItHasIsNotHeard(t *testing.T) {
	one := make([]Digest, 1)
	for what, said := range map[string][]byte{
		"a frame that is not HAVE":       plainFrame(fState, state{}.encode()),
		"nothing, and more to come":      haves(have{left: 3}),
		"more than it announced":         haves(have{left: 1, sums: one}, have{sums: make([]Digest, 2)}),
		"more than it may":               haves(have{left: MostKept, sums: one}),
		"half a digest":                  plainFrame(fHave, make([]byte, haveHead+8)),
		"nothing at all":                 plainFrame(fHave, nil),
		"more than a frame has room for": haves(have{sums: make([]Digest, haveMost+1)}),
	} {
		if _, err := greetWith(t, said); !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := greetWith(t, haves(have{left: 1, sums: one})); !errors.Is(err, ErrLost) {
		t.Errorf("the connection ended in mid-list: %v", err)
	}
	if s, err := greetWith(t, haves(have{left: 9, sums: one}, have{})); err != nil || s.Progress().PagesKept != 1 {
		t.Errorf("it told of less than it announced: %v", err)
	}
	if _, err := greetWith(t, plainFrame(fFail, encodeFailure(io.ErrNoProgress))); !errors.Is(err, ErrPeer) {
		t.Errorf("it gave up: %v", err)
	}
}

// FuzzHave: whatever a target says that it has, the source's table stays in order, and nothing is put where it should not be.
func FuzzHave(f *testing.F) {
	f.Add(haves(have{room: 7, sums: make([]Digest, 3)}))
	f.Add(haves(have{left: 1, room: 1 << 31, sums: []Digest{{1}, {2}, {1}}}, have{sums: []Digest{{3}}}))
	f.Add(haves(have{}))
	f.Fuzz(func(t *testing.T, said []byte) {
		s, err := greetWith(t, said)
		if err != nil {
			return
		}
		table := s.line.Load().plan.table
		s.Close() // nobody else uses it now, but its memory is gone
		if table.stock.last > table.limit || table.stock.room > table.limit || table.next != table.stock.last+1 {
			t.Fatalf("stock of %d, room for %d, limit %d, next %d", table.stock.last, table.stock.room, table.limit, table.next)
		}
	})
}

// TestWhatWasForgottenIsNotToldOf: a greeting that waits too long has the stock forgotten that another one, in its place, has told of; what
// was written meanwhile is not forgotten.
func TestWhatWasForgottenIsNotToldOf(t *testing.T) {
	_, _, kept := visit(t, Limits{}, nil, memoryOf(8, 9), true)
	r := NewReceiver(&visitor{})
	defer r.Close()
	store, err := r.Store()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := store.Stock(t.Context(), kept); n != 9 || err != nil {
		t.Fatalf("%d pages: %v", n, err)
	}
	if err := r.applier.hello(hello{Version: version, Key: newKey()}, false); err != nil {
		t.Fatal(err)
	}
	r.forgetStock(4)
	if h := r.someStock(9); h.left != 0 || len(h.sums) != 0 {
		t.Errorf("told of %d pages after 9 of 4, and of %d that are left", len(h.sums), h.left)
	}
	if err := store.put(5, make([]Digest, 1), make([]byte, PageSize)); err != nil {
		t.Fatal(err)
	}
	if r.forgetStock(2); store.Used() != 5 || store.stock != 4 {
		t.Errorf("%d slots are used, and %d of them the stock", store.Used(), store.stock)
	}
}

// TestAFarTargetDoesNotTellOfAllThatItHas, and the slots that it did not tell of are used for something else.
func TestAFarTargetDoesNotTellOfAllThatItHas(t *testing.T) {
	const pages = 3 * haveMost
	memory := memoryOf(8, pages)
	_, _, kept := visit(t, Limits{}, nil, memory, true)
	synctest.Test(t, func(t *testing.T) {
		r := NewReceiver(&visitor{})
		defer r.Close()
		store, err := r.Store()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := store.Stock(t.Context(), kept); n != pages || err != nil {
			t.Fatalf("%d pages: %v", n, err)
		}
		near, far := net.Pipe()
		defer far.Close()
		at := struct {
			io.Reader
			io.Writer
			io.Closer
		}{far, Limit(t.Context(), far, rate.NewLimiter(16<<10, 1<<10)), far} // a HAVE takes 4 s
		go r.Serve(context.Background(), at)
		s, err := NewSender(t.Context(), near, SenderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if p := s.Progress(); p.PagesKept != 2*haveMost {
			t.Errorf("it was told of %d pages", p.PagesKept)
		}
	})
}
