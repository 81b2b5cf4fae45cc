package transfer

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// serve lets a target take HELLO with a key of zeros and then these frames, and says how it ends.
func serve(frames ...[]byte) error {
	_, err := Receive(context.Background(), scripted{bytes.NewReader(numbered(append([][]byte{zeroKey}, frames...)...))}, &counting{})
	return err
}

// putOf is a PUT of these pages.
func putOf(d *digester, puts []put, pages ...[]byte) []byte {
	var w putWriter
	for i, p := range puts {
		w.add(p, d.of(pages[i]), pages[i])
	}
	return w.finish(d)[headSize:]
}

func TestAPutReadsAsItWasWritten(t *testing.T) {
	d, err := newDigester(make([]byte, keySize))
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, PageSize)
	for n := range pagePieces {
		page[n*pieceSize] = byte(n)
	}
	want := []put{
		{slot: 1, mask: allPieces}, {slot: 2, mask: allPieces}, {slot: 1 << 31, mask: allPieces},
		{slot: 7, base: 1 << 31, mask: 0x41}, {slot: 8, base: 1<<31 + 1, mask: 1}, {slot: 9, mask: 0x80}, {slot: 1<<32 - 2, base: 1<<32 - 1, mask: 2},
		{slot: 10, mask: allPieces},
	}
	pages := make([][]byte, len(want))
	for i := range pages {
		pages[i] = page
	}
	r, err := readPut(putOf(d, want, pages...))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		got, ok, err := r.page()
		if !ok || err != nil {
			t.Fatalf("for %+v: %v", w, err)
		}
		for n := range pagePieces {
			if w.mask&(1<<n) != 0 {
				w.pieces = append(w.pieces, page[n*pieceSize:(n+1)*pieceSize]...)
			}
		}
		if diff := cmp.Diff(w, got, cmp.AllowUnexported(put{})); diff != "" {
			t.Error(diff)
		}
	}
	if _, ok, err := r.page(); ok || err != nil {
		t.Errorf("more comes: %v", err)
	}
}

func TestAPatchIsTakenOnlyIfItMakesTheSourcesPage(t *testing.T) {
	d, err := newDigester(make([]byte, keySize))
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.Repeat([]byte("a"), PageSize)
	second := bytes.Clone(first)
	second[3*pieceSize], second[5*pieceSize] = 'b', 'b'
	good := put{slot: 2, base: 1, mask: 1<<3 | 1<<5}
	with := func(change func(*put)) []byte {
		p := good
		change(&p)
		return putOf(d, []put{p}, second)
	}
	spoilt := func(change func(b []byte) []byte) []byte { return change(putOf(d, []put{good}, second)) }
	whole := put{slot: 1, mask: allPieces}
	for name, c := range map[string]struct {
		payload []byte
		want    error
	}{
		"as it should be":             {putOf(d, []put{good}, second), ErrLost}, // nothing follows
		"a page and its patch":        {putOf(d, []put{whole, good}, first, second), ErrLost},
		"a piece left out":            {with(func(p *put) { p.mask = 1 << 3 }), ErrCorrupt},
		"another base":                {with(func(p *put) { p.base = 0 }), ErrCorrupt},
		"another digest":              {spoilt(func(b []byte) []byte { b[len(b)-1]++; return b }), ErrCorrupt},
		"a base never written":        {with(func(p *put) { p.base = 3 }), ErrProtocol},
		"a base beyond the store":     {with(func(p *put) { p.base = 1 << 31 }), ErrProtocol},
		"its own base":                {with(func(p *put) { p.slot = 1 }), ErrProtocol},
		"onto the zero page":          {with(func(p *put) { p.slot = 0 }), ErrProtocol},
		"a gap":                       {with(func(p *put) { p.slot = 4 }), ErrProtocol},
		"no piece":                    {with(func(p *put) { p.mask = 0 }), ErrProtocol},
		"a patch of all pieces":       {spoilt(func(b []byte) []byte { b[len(b)-21] = allPieces; return b }), ErrProtocol},
		"a whole page, damaged":       {spoiltPage(putOf(d, []put{whole}, first)), ErrCorrupt},
		"more pieces named than come": {spoilt(func(b []byte) []byte { return b[pieceSize:] }), ErrProtocol},
		"bytes are left":              {spoilt(func(b []byte) []byte { return append([]byte{1, 2, 3}, b...) }), ErrProtocol},
		"entries longer than it":      {spoilt(func(b []byte) []byte { b[len(b)-17] = 1; return b }), ErrProtocol},
		"no entries":                  {spoilt(func(b []byte) []byte { clear(b[len(b)-20 : len(b)-16]); return b }), ErrProtocol},
		"a run cut off":               {spoilt(func(b []byte) []byte { return append(b[:len(b)-21], append([]byte{3, 0, 0, 0}, b[len(b)-16:]...)...) }), ErrProtocol},
		"nothing":                     {nil, ErrProtocol},
	} {
		if err := serve(plainFrame(fPut, putOf(d, []put{whole}, first)), plainFrame(fPut, c.payload)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func spoiltPage(b []byte) []byte { b[7]++; return b }

// TestAPieceWhoseHashCollidesFailsTheStream: a change that the hashes do not show is refused by the target, not restored.
func TestAPieceWhoseHashCollidesFailsTheStream(t *testing.T) {
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := Receive(context.Background(), far, &counting{})
		done <- err
	}()
	s, err := NewSender(t.Context(), near, SenderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	space, page := Space{1, 1}, bytes.Repeat([]byte("content "), PageSize/8)
	if err := s.Offer(space, 0, page); err != nil {
		t.Fatal(err)
	}
	if _, err := s.EndRound(t.Context()); err != nil {
		t.Fatal(err)
	}
	page[0]++                                         // what the hashes show
	page[PageSize-1]++                                // and what they shall not
	known := &s.line.Load().plan.table.rows[1].pieces // nobody else uses it between rounds
	known[pagePieces-1] = sumPieces(s.line.Load().plan.seed, page)[pagePieces-1]
	if err := s.Offer(space, 0, page); err != nil {
		t.Fatal(err)
	}
	if _, err := s.EndRound(t.Context()); !errors.Is(err, ErrPeer) {
		t.Errorf("the source got %v", err)
	}
	if err := <-done; !errors.Is(err, ErrCorrupt) {
		t.Errorf("the target got %v", err)
	}
	if n := s.Progress().PagesPatched; n != 1 {
		t.Errorf("%d pages were patched", n)
	}
}
