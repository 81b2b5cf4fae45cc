package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// wire is a client's side of the protocol: what it sends, and what it was answered.
type wire struct {
	io.Reader
	answers bytes.Buffer
}

func (w *wire) Write(b []byte) (int, error) { return w.answers.Write(b) }

func header(cmd uint32, n, addr, dst uint64) []byte {
	b := make([]byte, psHeader)
	binary.LittleEndian.PutUint32(b, cmd)
	binary.LittleEndian.PutUint64(b[8:], n)
	binary.LittleEndian.PutUint64(b[16:], addr)
	binary.LittleEndian.PutUint64(b[24:], dst)
	return b
}

// heard is a sink that remembers.
type heard struct {
	spaces []Space
	pages  map[uint64]byte // by address, the first byte
	holes  uint64
	closed bool
	fail   error
}

func (h *heard) Open(s Space) error { h.spaces = append(h.spaces, s); return h.fail }
func (h *heard) Run(addr uint64, _ uint32, data []byte) error {
	if h.pages == nil {
		h.pages = map[uint64]byte{}
	}
	for i := 0; i < len(data); i += PageSize {
		h.pages[addr+uint64(i)] = data[i]
	}
	return h.fail
}
func (h *heard) Hole(_ uint64, _ uint32, n uint64) error { h.holes += n; return nil }
func (h *heard) Close() error                            { h.closed = true; return nil }

func TestServePagesHandsOverWhatADumpSends(t *testing.T) {
	pages := make([]byte, 300*PageSize)
	for i := range 300 {
		pages[i*PageSize] = byte(i)
	}
	in := bytes.Join([][]byte{
		header(psOpen2, 0, 0, 7<<8|1),
		header(psAddF|PEPresent<<16, 300, 0x10000, 7<<8|1), pages,
		header(psAddF|PEParent<<16, 5, 0x900000, 7<<8|1),
		header(psClose, 0, 0, 0),
	}, nil)
	w, sink := &wire{Reader: bytes.NewReader(in)}, &heard{}
	if err := ServePages(w, sink, nil); err != nil {
		t.Fatal(err)
	}
	if len(sink.pages) != 300 || sink.pages[0x10000+299*PageSize] != byte(299%256) || sink.holes != 5 || !sink.closed {
		t.Errorf("%d pages, %d holes, closed %v", len(sink.pages), sink.holes, sink.closed)
	}
	if got := w.answers.Bytes(); !bytes.Equal(got, make([]byte, 5)) {
		t.Errorf("answered %x", got)
	}
}

func TestServePagesAcknowledgesNothingThatTheSinkRefused(t *testing.T) {
	in := append(header(psOpen2, 0, 0, 7<<8|1), header(psClose, 0, 0, 0)...)
	w := &wire{Reader: bytes.NewReader(in)}
	full := errors.New("full")
	if err := ServePages(w, &heard{fail: full}, nil); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if w.answers.Len() != 0 {
		t.Errorf("answered %x", w.answers.Bytes())
	}
}

func TestServePagesRefusesWhatIsNotTheProtocol(t *testing.T) {
	open := header(psOpen2, 0, 0, 7<<8|1)
	for why, in := range map[string][]byte{
		"an unknown command":    header(99, 0, 0, 0),
		"pages before a space":  header(psAddF|PEPresent<<16, 1, 0, 7<<8|1),
		"no destination":        header(psOpen2, 0, 0, 0),
		"process 0":             header(psOpen2, 0, 0, 0<<8|1),
		"too many pages":        append(bytes.Clone(open), header(psAddF, 1<<60, 0, 7<<8|1)...),
		"an unaligned address":  append(bytes.Clone(open), header(psAddF, 1, 13, 7<<8|1)...),
		"an address that wraps": append(bytes.Clone(open), header(psAddF, 2, 1<<64-PageSize, 7<<8|1)...),
	} {
		if err := ServePages(&wire{Reader: bytes.NewReader(in)}, &heard{}, nil); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v", why, err)
		}
	}
}

func TestServePagesTakesTheFirstSystemVSegment(t *testing.T) {
	in := append(header(psOpen2, 0, 0, 0<<8|2), header(psClose, 0, 0, 0)...)
	if err := ServePages(&wire{Reader: bytes.NewReader(in)}, &heard{}, nil); err != nil {
		t.Error(err)
	}
}

func FuzzServePages(f *testing.F) {
	f.Add(append(header(psOpen2, 0, 0, 7<<8|1), header(psClose, 0, 0, 0)...))
	f.Add(append(append(header(psOpen2, 0, 0, 7<<8|2), header(psAddF|PEPresent<<16, 1, 4096, 0)...), make([]byte, PageSize)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		sink := &heard{}
		if err := ServePages(&wire{Reader: bytes.NewReader(in)}, sink, nil); err == nil && !sink.closed {
			t.Error("ended well without a close")
		}
	})
}

func TestPagemapWriterJoinsRunsAndKeepsPagesInOrder(t *testing.T) {
	dir := t.TempDir()
	w, err := NewPagemapWriter(dir, Space{Process, 42}, 3)
	if err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte{7}, PageSize)
	for _, a := range []uint64{0x1000, 0x2000, 0x9000} {
		if err := w.Run(a, PEPresent, page); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Run(0x9000, PEPresent, page); !errors.Is(err, ErrOrder) {
		t.Errorf("the same page twice: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(filepath.Join(dir, "pagemap-42.img"))
	// common magic, pagemap magic, {1: 3}, {1: 0x1000, 2: 0, 4: 4, 5: 2}, {1: 0x9000, 2: 0, 4: 4, 5: 1}
	want := "\x19\x43\x56\x54\x25\x40\x08\x56" + "\x02\x00\x00\x00\x08\x03" +
		"\x09\x00\x00\x00\x08\x80\x20\x10\x00\x20\x04\x28\x02" + "\x0a\x00\x00\x00\x08\x80\xa0\x02\x10\x00\x20\x04\x28\x01"
	if string(got) != want {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if st, err := os.Stat(filepath.Join(dir, "pages-3.img")); err != nil || st.Size() != 3*PageSize || st.Mode().Perm() != 0o600 {
		t.Errorf("pages: %v, %v", st, err)
	}
}
