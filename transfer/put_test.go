package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
)

// serve lets a target take HELLO with a key of zeros and then these frames, and says how it ends.
func serve(frames ...[]byte) error {
	_, err := Receive(context.Background(), scripted{io.MultiReader(bytes.NewReader(zeroKey), bytes.NewReader(bytes.Join(frames, nil)))}, &counting{})
	return err
}

func TestAPatchIsTakenOnlyIfItMakesTheSourcesPage(t *testing.T) {
	d, err := newDigester(make([]byte, keySize))
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.Repeat([]byte("a"), PageSize)
	second := bytes.Clone(first)
	second[3*pieceSize], second[5*pieceSize] = 'b', 'b'
	frame := func(p put, page []byte) []byte { return plainFrame(fPut, appendPut(nil, p, page)) }
	good := put{slot: 2, base: 1, sum: d.of(second), mask: 1<<3 | 1<<5}
	with := func(change func(*put)) []byte {
		p := good
		change(&p)
		return frame(p, second)
	}
	for name, c := range map[string]struct {
		frame []byte
		want  error
	}{
		"as it should be":             {frame(good, second), ErrLost}, // nothing follows
		"a piece left out":            {with(func(p *put) { p.mask = 1 << 3 }), ErrCorrupt},
		"another base":                {with(func(p *put) { p.base = 0 }), ErrCorrupt},
		"another digest":              {with(func(p *put) { p.sum[0]++ }), ErrCorrupt},
		"a base never written":        {with(func(p *put) { p.base = 3 }), ErrProtocol},
		"a base beyond the store":     {with(func(p *put) { p.base = 1 << 31 }), ErrProtocol},
		"its own base":                {with(func(p *put) { p.slot = 1 }), ErrProtocol},
		"onto the zero page":          {with(func(p *put) { p.slot = 0 }), ErrProtocol},
		"a gap":                       {with(func(p *put) { p.slot = 4 }), ErrProtocol},
		"no piece":                    {with(func(p *put) { p.mask = 0 }), ErrProtocol},
		"a whole page with a base":    {with(func(p *put) { p.mask = allPieces }), ErrProtocol},
		"a whole page, damaged":       {with(func(p *put) { p.mask, p.base = allPieces, 0; p.sum[9]++ }), ErrCorrupt},
		"more pieces named than come": {plainFrame(fPut, appendPut(nil, good, second)[:putHead+pieceSize]), ErrProtocol},
		"bytes are left":              {plainFrame(fPut, append(appendPut(nil, good, second), 1, 2, 3)), ErrProtocol},
		"nothing":                     {plainFrame(fPut, nil), ErrProtocol},
	} {
		if err := serve(frame(put{slot: 1, sum: d.of(first), mask: allPieces}, first), c.frame); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

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
