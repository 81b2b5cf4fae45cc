package lazy

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/sealed"
)

// Extent is pages that follow each other in a process and in a file of pages.
type Extent struct {
	Addr   uint64
	Pages  uint64
	Offset uint64 // in the file, in bytes, a multiple of image.PageSize; Zeros if all are zeros
}

// Zeros is the Offset of pages that stand in no file.
const Zeros = math.MaxUint64

func (e Extent) end() uint64 { return e.Addr + e.Pages*pageSize }

// clip is what of an extent, which reaches into [from, to), lies there.
func (e Extent) clip(from, to uint64) Extent {
	from, to = max(from, e.Addr), min(to, e.end())
	if e.Offset != Zeros {
		e.Offset += from - e.Addr
	}
	return Extent{from, (to - from) / pageSize, e.Offset}
}

// Index says where in a file of pages the memory of each process stands, by its pid in the tree's own pid namespace. Addresses rise.
type Index map[uint64][]Extent

// Add notes pages that follow those noted before of the process.
func (x Index) Add(pid uint64, e Extent) {
	all := x[pid]
	if n := len(all); n > 0 && all[n-1].end() == e.Addr {
		last := &all[n-1]
		if last.Offset == Zeros && e.Offset == Zeros || last.Offset != Zeros && e.Offset == last.Offset+last.Pages*pageSize {
			last.Pages += e.Pages
			return
		}
	}
	x[pid] = append(all, e)
}

// at cuts an extent in two at an offset.
func (e Extent) at(offset uint64) (before, beyond Extent) {
	if e.Offset == Zeros || e.Offset >= offset {
		return Extent{}, e
	}
	cut := e.Addr + min(offset-e.Offset, e.Pages*pageSize)
	return e.clip(e.Addr, cut), e.clip(cut, e.end())
}

// within yields what of [from, to) of a process it knows, rising.
func (x Index) within(pid, from, to uint64) iter.Seq[Extent] {
	all := x[pid]
	first, _ := slices.BinarySearchFunc(all, from, func(e Extent, addr uint64) int { return cmp.Compare(e.end(), addr+1) })
	return func(yield func(Extent) bool) {
		for _, e := range all[first:] {
			if e.Addr >= to || !yield(e.clip(from, to)) {
				return
			}
		}
	}
}

// The form of an index between two processes of one drover on one host: words of 64 bits in the host's order, first the magic
// number, then for each process its pid, how many extents, and the extents.
const (
	indexMagic = 0x64726f7665723031 // "drover01"
	mostExtent = 1 << 28            // of one process: 1 TiB of single pages
)

// WriteIndex writes an index to f from where that stands.
func WriteIndex(f io.Writer, x Index) error {
	w := bufio.NewWriterSize(f, 256<<10)
	var b []byte
	put := func(words ...uint64) {
		b = b[:0]
		for _, n := range words {
			b = binary.NativeEndian.AppendUint64(b, n)
		}
		_, _ = w.Write(b) // Flush says it
	}
	put(indexMagic)
	for pid, all := range x {
		put(pid, uint64(len(all)))
		for _, e := range all {
			put(e.Addr, e.Pages, e.Offset)
		}
	}
	return w.Flush()
}

// Files are a tree's memory in files, which may be given to another process.
type Files struct {
	Pages *os.File // offsets up to its size
	// Spilled and Seals are of a sealed.Pages, with the offsets beyond that; nil if there are none.
	Spilled, Seals *os.File
	Index          *os.File // read from its beginning; see WriteIndex
}

// FileMemory is Memory in files. One of pages is mapped.
type FileMemory struct {
	index   Index
	file    *os.File
	pages   []byte
	spilled *sealed.Pages // nil if there are none
	uses    uses

	mu    sync.Mutex // guards spare
	spare []stretch  // what nobody wants and has not been given back
}

var _ Sparing = (*FileMemory)(nil)

// OpenMemory opens the memory in files, of which the index may be closed then. What the others hold must not change until Close, but by
// GiveBack, which makes holes in the pages if they are open for writing.
func OpenMemory(f Files) (*FileMemory, error) {
	m := &FileMemory{file: f.Pages}
	if err := m.open(f); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *FileMemory) open(f Files) error {
	info, err := f.Pages.Stat()
	if err != nil {
		return fmt.Errorf("look at the memory's file: %w", err)
	}
	m.uses = make(uses, info.Size()/pageSize)
	size := m.uses.bytes()
	if size > 0 {
		if m.pages, err = unix.Mmap(int(f.Pages.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return fmt.Errorf("map the memory's file: %w", err)
		}
	}
	if f.Spilled != nil {
		if m.spilled, err = sealed.Open(f.Spilled, f.Seals); err != nil {
			return err
		}
		size += uint64(m.spilled.Len()) * pageSize
	}
	if m.index, err = readIndex(io.NewSectionReader(f.Index, 0, math.MaxInt64), size); err != nil {
		return errs.New(errs.Invalid, "read the memory's index: %w", err)
	}
	for _, all := range m.index {
		for _, e := range all {
			m.uses.add(e)
		}
	}
	return nil
}

func readIndex(r io.Reader, size uint64) (Index, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	word := func() (uint64, error) {
		var b [8]byte
		_, err := io.ReadFull(br, b[:])
		return binary.NativeEndian.Uint64(b[:]), err
	}
	if magic, err := word(); err != nil || magic != indexMagic {
		return nil, errors.New("it is none")
	}
	x := Index{}
	for {
		pid, err := word()
		if errors.Is(err, io.EOF) {
			return x, nil
		}
		n, err2 := word()
		if err = errors.Join(err, err2); err != nil || n > mostExtent || x[pid] != nil {
			return nil, errors.Join(fmt.Errorf("%d extents of process %d", n, pid), err)
		}
		all, above := []Extent{}, uint64(0)
		for range n {
			var e Extent
			for _, to := range []*uint64{&e.Addr, &e.Pages, &e.Offset} {
				if *to, err = word(); err != nil {
					return nil, errors.New("it is torn")
				}
			}
			bytes := e.Pages * pageSize
			inFile := e.Offset == Zeros || e.Offset%pageSize == 0 && e.Offset <= size && bytes <= size-e.Offset
			if e.Pages == 0 || e.Pages > math.MaxUint64/pageSize || e.Addr%pageSize != 0 || e.Addr < above || e.Addr+bytes < e.Addr || !inFile {
				return nil, fmt.Errorf("%d pages of process %d for %#x at offset %#x of %#x", e.Pages, pid, e.Addr, e.Offset, size)
			}
			above = e.end()
			all = append(all, e)
		}
		x[pid] = all
	}
}

// Runs implements Memory.
func (m *FileMemory) Runs(pid, from, to uint64) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		for e := range m.index.within(pid, from, to) {
			mapped, beyond := e.at(m.uses.bytes())
			if mapped.Pages > 0 && !yield(m.run(mapped)) || beyond.Pages > 0 && !yield(m.run(beyond)) {
				return
			}
		}
	}
}

// run is an extent that is not partly in the one file and partly in the other.
func (m *FileMemory) run(e Extent) Run {
	switch all := m.uses.bytes(); {
	case e.Offset == Zeros:
		return Run{Addr: e.Addr, Zero: e.Pages}
	case e.Offset < all:
		return Run{Addr: e.Addr, Data: m.pages[e.Offset : e.Offset+e.Pages*pageSize]}
	default:
		return Run{Addr: e.Addr, Sealed: Sealed{m.spilled, uint32((e.Offset - all) / pageSize), e.Pages}}
	}
}

// Close lets go of the files, and closes none.
func (m *FileMemory) Close() error {
	var err error
	if m.spilled != nil {
		err = m.spilled.Release()
	}
	if m.pages != nil {
		err = errors.Join(err, unix.Munmap(m.pages))
	}
	m.pages, m.spilled = nil, nil
	return err
}
