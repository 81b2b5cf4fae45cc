package transfer

import (
	"bytes"
	"context"
	"io"
	"math/bits"
	"testing"
)

// FuzzReadFrame: whatever bytes come, a frame is read within its bounds or refused.
func FuzzReadFrame(f *testing.F) {
	f.Add(plainFrame(fState, state{applied: 3}.encode()), true)
	f.Add(plainFrame(fEnd, make([]byte, 32)), false)
	f.Add([]byte{1, 2, 3}, false)
	f.Fuzz(func(t *testing.T, b []byte, fromTarget bool) {
		got, err := readFrame(bytes.NewReader(b), fromTarget)
		if err != nil {
			return
		}
		row, ok := rowOf(got.kind)
		if !ok || row.Target != fromTarget || got.raw > row.Max || len(got.body) > got.raw {
			t.Fatalf("accepted %+v", got)
		}
		u := newUnpacker()
		defer u.close()
		if payload, err := u.unpack(got); err == nil && len(payload) != got.raw {
			t.Fatalf("%d bytes unpacked, not %d", len(payload), got.raw)
		}
	})
}

// FuzzReceive: whatever frames come, with checksums that are right, the target fails in order and leaves nothing open.
func FuzzReceive(f *testing.F) {
	first, second := make([]byte, PageSize), make([]byte, PageSize)
	second[pieceSize] = 1
	d, err := newDigester(make([]byte, keySize))
	if err != nil {
		f.Fatal(err)
	}
	whole, patched := put{slot: 1, mask: allPieces}, put{slot: 2, base: 1, mask: 1 << 1}
	page, patch := putOf(d, []put{whole}, first), putOf(d, []put{patched}, second)
	both := putOf(d, []put{whole, patched}, first, second)
	f.Add(byte(fPut), page, byte(fPut), patch, byte(fSpace), make([]byte, 9), byte(fMap), []byte{0, 1, 1, 1 << 2, 4})
	f.Add(byte(fPut), both, byte(fPut), patch[:20], byte(fPut), patch[100:], byte(fRound), []byte{1, 0, 0, 0})
	f.Add(byte(fPut), page, byte(fRound), []byte{1, 0, 0, 0}, byte(fSpace), make([]byte, 9), byte(fMap), []byte{0, 1, 1, 1 << 2, 2})
	f.Add(byte(fFile), []byte("\x01kmeta"), byte(fData), []byte("x"), byte(fClose), make([]byte, 40), byte(fEnd), make([]byte, 32))
	f.Fuzz(func(t *testing.T, k1 byte, b1 []byte, k2 byte, b2 []byte, k3 byte, b3 []byte, k4 byte, b4 []byte) {
		in := bytes.Clone(zeroKey)
		for i, x := range []struct {
			kind byte
			body []byte
		}{{k1, b1}, {k2, b2}, {k3, b3}, {k4, b4}} {
			in = append(in, number(plainFrame(FrameType(x.kind), x.body), uint64(i+1))...)
		}
		target := &counting{}
		result, err := Receive(context.Background(), scripted{bytes.NewReader(in)}, target)
		if err == nil && result.Root != [32]byte(b4) && result.Root != [32]byte(b3) && result.Root != [32]byte(b2) && result.Root != [32]byte(b1) {
			t.Fatal("a stream without an end was accepted")
		}
		if target.open != 0 {
			t.Fatalf("%d are left open", target.open)
		}
	})
}

// FuzzPut: whatever PUT says, each page read has slot, base and pieces within their bounds, and all of its bytes are used.
func FuzzPut(f *testing.F) {
	d, err := newDigester(make([]byte, keySize))
	if err != nil {
		f.Fatal(err)
	}
	page := make([]byte, PageSize)
	f.Add(putOf(d, []put{{slot: 1, mask: allPieces}, {slot: 2, base: 1, mask: 1 << 1}, {slot: 3, base: 2, mask: 3}}, page, page, page))
	f.Add(putOf(d, []put{{slot: 1 << 31, base: 1<<32 - 1, mask: 1}, {slot: 1, mask: allPieces}}, page, page))
	f.Add([]byte{3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readPut(b)
		if err != nil {
			return
		}
		for used := 0; ; {
			p, ok, err := r.page()
			if err != nil {
				return
			}
			if !ok {
				if at := len(b) - used; used == 0 || at < 4+len(Digest{}) {
					t.Fatalf("accepted with %d of %d bytes of pieces", used, len(b))
				}
				return
			}
			if n := bits.OnesCount8(p.mask) * pieceSize; p.slot == 0 || n == 0 || len(p.pieces) != n || p.whole() && p.base != 0 {
				t.Fatalf("accepted %+v", p)
			}
			used += len(p.pieces)
		}
	})
}

// FuzzMerge: in whatever order lanes bring frames, and however often, they are taken in order, once, and what waits is
// bounded. Each byte is a frame's number, a multiple of 16 also takes what is there.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{1, 2, 16, 3, 5, 4, 32, 3, 1})
	f.Add([]byte{2, 3, 2, 1, 1, 16, 48, 9, 8, 7})
	f.Fuzz(func(t *testing.T, numbers []byte) {
		m, want := newMerge(), uint64(1)
		for _, n := range numbers {
			_, _ = m.offer(frameOf(uint64(n), 600<<10)) // one that has no room or may not come is not in
			sum := 0
			for number, f := range m.frames {
				if sum += f.wireSize(); number < m.next || f.number != number {
					t.Fatalf("frame %d waits as %d, the next is %d", f.number, number, m.next)
				}
			}
			if sum != m.bytes || sum > mergeMost+bufferSize { // the next one is always taken
				t.Fatalf("%d bytes wait, counted as %d", sum, m.bytes)
			}
			for n%16 == 0 && m.frames[want] != nil {
				if f, err := m.take(t.Context()); err != nil || f.number != want {
					t.Fatalf("frame %d: %v", want, err)
				}
				want++
			}
		}
	})
}

// scripted is a connection whose other end has said everything already.
type scripted struct{ in io.Reader }

func (s scripted) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s scripted) Write(p []byte) (int, error) { return len(p), nil }
func (s scripted) Close() error                { return nil }

// counting is a target that counts what is open.
type counting struct{ open int }

func (c *counting) Limits() Limits { return Limits{Slots: 1000, Pages: 10000} }

func (c *counting) File(string, []byte) (io.WriteCloser, error) {
	c.open++
	return countingFile{c}, nil
}

func (c *counting) Open(Space) (PageWriter, error) {
	c.open++
	return countingFile{c}, nil
}

type countingFile struct{ c *counting }

func (f countingFile) Write(p []byte) (int, error) { return len(p), nil }
func (f countingFile) Entry(_ uint64, _ uint32, content []Content) error {
	for _, c := range content {
		if b, err := c.Bytes(); err != nil || len(b) != c.Pages()*PageSize {
			return protocol("%d bytes of %d pages: %v", len(b), c.Pages(), err)
		}
	}
	return nil
}
func (f countingFile) Hole(uint64, uint32, uint64) error { return nil }
func (f countingFile) Close() error                      { f.c.open--; return nil }

// FuzzAnswer: whatever a target says of itself, the source reads it in its bounds or refuses it, and never prints more than a little of
// it.
func FuzzAnswer(f *testing.F) {
	f.Add(state{applied: 7, staged: true}.encode())
	f.Add(encodeFailure(ErrTooLarge))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeState(b); err == nil && !bytes.Equal(s.encode()[:16], b[:16]) {
			t.Errorf("%x was read as %+v", b, s)
		}
		if err := decodeFailure(b); err == nil || len(err.Error()) > 600 {
			t.Errorf("the target's reason: %v", err)
		}
	})
}
