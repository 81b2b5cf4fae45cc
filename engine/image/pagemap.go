package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Magic numbers of CRIU's images (criu/include/magic.h).
const (
	magicCommon  = 0x54564319
	magicPagemap = 0x56084025
)

// PagemapName is the name of a space's pagemap file.
func PagemapName(s Space) string {
	if s.Kind == Shmem {
		return fmt.Sprintf("pagemap-shmem-%d.img", s.ID)
	}
	return fmt.Sprintf("pagemap-%d.img", s.ID)
}

// PagesName is the name of the file with the pages of the pagemap with that number.
func PagesName(id uint32) string { return fmt.Sprintf("pages-%d.img", id) }

// PagemapWriter writes the pagemap and the pages of one space as CRIU 4.2 does. Not safe for concurrent use.
type PagemapWriter struct {
	entryWriter
	pages *os.File
	pw    *bufio.Writer
}

// entry is a pagemap entry (images/pagemap.proto).
type entry struct {
	addr  uint64
	pages uint64
	flags uint32
}

// NewPagemapWriter makes the two files of a space in dir, 0600. pagesID is unique in the directory and above 0.
func NewPagemapWriter(dir string, s Space, pagesID uint32) (*PagemapWriter, error) {
	e, err := create(filepath.Join(dir, PagemapName(s)))
	if err != nil {
		return nil, err
	}
	p, err := create(filepath.Join(dir, PagesName(pagesID)))
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &PagemapWriter{entryWriter: newEntryWriter(e, pagesID), pages: p, pw: bufio.NewWriterSize(p, 64<<10)}, nil
}

func create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

// Run appends pages that are present; data has a multiple of PageSize bytes. Addresses rise from call to call.
func (w *PagemapWriter) Run(addr uint64, flags uint32, data []byte) error {
	if err := w.add(addr, flags, uint64(len(data)/PageSize)); err != nil {
		return err
	}
	_, err := w.pw.Write(data)
	return err
}

// Hole appends an entry without data.
func (w *PagemapWriter) Hole(addr uint64, flags uint32, n uint64) error { return w.add(addr, flags, n) }

// Close writes what is left and closes both files; the first error of any write comes back here.
func (w *PagemapWriter) Close() error {
	return errors.Join(w.close(), w.pw.Flush(), w.pages.Close())
}

// ErrOrder is what a PagemapWriter fails with when addresses do not rise.
var ErrOrder = errors.New("pages out of order")

// entryWriter writes a pagemap file.
type entryWriter struct {
	entries *os.File
	ew      *bufio.Writer
	last    entry
}

func newEntryWriter(f *os.File, pagesID uint32) entryWriter {
	w := entryWriter{entries: f, ew: bufio.NewWriter(f)}
	var magic [8]byte
	binary.LittleEndian.PutUint32(magic[:], magicCommon)
	binary.LittleEndian.PutUint32(magic[4:], magicPagemap)
	w.ew.Write(magic[:])
	w.record(1, uint64(pagesID))
	return w
}

// add joins an entry to the last one where they meet.
func (w *entryWriter) add(addr uint64, flags uint32, n uint64) error {
	if w.last.pages > 0 && addr < w.last.addr+w.last.pages*PageSize {
		return fmt.Errorf("page %#x after %#x: %w", addr, w.last.addr, ErrOrder)
	}
	if w.last.pages > 0 && w.last.flags == flags && addr == w.last.addr+w.last.pages*PageSize {
		w.last.pages += n
		return nil
	}
	w.flush()
	w.last = entry{addr, n, flags}
	return nil
}

// flush writes the entry that no more can join: vaddr 1, the old 32-bit count 2 (required, 0), flags 4, count 5.
func (w *entryWriter) flush() {
	if w.last.pages > 0 {
		w.record(1, w.last.addr, 2, 0, 4, uint64(w.last.flags), 5, w.last.pages)
	}
}

// record appends a length-prefixed protobuf message of varint fields, given as pairs of number and value.
func (w *entryWriter) record(fields ...uint64) {
	b := make([]byte, 4, 48)
	for i := 0; i < len(fields); i += 2 {
		b = append(b, byte(fields[i]<<3))
		b = binary.AppendUvarint(b, fields[i+1])
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	w.ew.Write(b)
}

// close writes what is left; the first error of any write comes back here.
func (w *entryWriter) close() error {
	w.flush()
	return errors.Join(w.ew.Flush(), w.entries.Close())
}
