package transfer

import (
	"bytes"
	"context"
	"io"
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
	page := appendPut(nil, put{slot: 1, sum: d.of(first), mask: allPieces}, first)
	patch := appendPut(nil, put{slot: 2, base: 1, sum: d.of(second), mask: 1 << 1}, second)
	f.Add(byte(fPut), page, byte(fPut), patch, byte(fSpace), make([]byte, 9), byte(fMap), []byte{0, 1, 1, 1 << 2, 4})
	f.Add(byte(fPut), append(page, patch...), byte(fPut), patch[:putHead], byte(fPut), patch[:putHead+100], byte(fRound), []byte{1, 0, 0, 0})
	f.Add(byte(fPut), page, byte(fRound), []byte{1, 0, 0, 0}, byte(fSpace), make([]byte, 9), byte(fMap), []byte{0, 1, 1, 1 << 2, 2})
	f.Add(byte(fFile), []byte("\x01kmeta"), byte(fData), []byte("x"), byte(fClose), make([]byte, 40), byte(fEnd), make([]byte, 32))
	f.Fuzz(func(t *testing.T, k1 byte, b1 []byte, k2 byte, b2 []byte, k3 byte, b3 []byte, k4 byte, b4 []byte) {
		var in bytes.Buffer
		in.Write(zeroKey)
		for _, x := range []struct {
			kind byte
			body []byte
		}{{k1, b1}, {k2, b2}, {k3, b3}, {k4, b4}} {
			in.Write(plainFrame(FrameType(x.kind), x.body))
		}
		target := &counting{}
		result, err := Receive(context.Background(), scripted{&in}, target)
		if err == nil && result.Root != [32]byte(b4) && result.Root != [32]byte(b3) && result.Root != [32]byte(b2) && result.Root != [32]byte(b1) {
			t.Fatal("a stream without an end was accepted")
		}
		if target.open != 0 {
			t.Fatalf("%d are left open", target.open)
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
func (f countingFile) Entry(_ uint64, _ uint32, pages [][]byte) error {
	for _, p := range pages {
		_ = p[len(p)-1]
	}
	return nil
}
func (f countingFile) Hole(uint64, uint32, uint64) error { return nil }
func (f countingFile) Close() error                      { f.c.open--; return nil }
