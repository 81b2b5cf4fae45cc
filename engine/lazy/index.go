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

// FileMemory is Memory in a file of pages, which is mapped.
type FileMemory struct {
	index Index
	file  *os.File
	pages []byte
	uses  uses

	mu    sync.Mutex // guards spare
	spare []stretch  // what nobody wants and has not been given back
}

var _ Sparing = (*FileMemory)(nil)

// OpenMemory maps a file of pages with its index, which is read from its beginning and may be closed then. What the file of pages
// holds must not change until Close, but by GiveBack, which makes holes in it if it is open for writing.
func OpenMemory(pages, index *os.File) (*FileMemory, error) {
	info, err := pages.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at the memory's file: %w", err)
	}
	x, err := readIndex(io.NewSectionReader(index, 0, math.MaxInt64), uint64(info.Size()))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the memory's index: %w", err)
	}
	m := &FileMemory{index: x, file: pages, uses: make(uses, info.Size()/pageSize)}
	for _, all := range x {
		for _, e := range all {
			if e.Offset != Zeros {
				m.uses.add(e)
			}
		}
	}
	if info.Size() > 0 {
		if m.pages, err = unix.Mmap(int(pages.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return nil, fmt.Errorf("map the memory's file: %w", err)
		}
	}
	return m, nil
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
			r := Run{Addr: e.Addr, Zero: e.Pages}
			if e.Offset != Zeros {
				r = Run{Addr: e.Addr, Data: m.pages[e.Offset : e.Offset+e.Pages*pageSize]}
			}
			if !yield(r) {
				return
			}
		}
	}
}

// Close unmaps the pages.
func (m *FileMemory) Close() error {
	if m.pages == nil {
		return nil
	}
	b := m.pages
	m.pages = nil
	return unix.Munmap(b)
}
