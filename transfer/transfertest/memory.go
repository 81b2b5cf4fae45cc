package transfertest

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"

	"drover/transfer"
)

// Memory is a transfer.Target that keeps everything. Its methods hold it to the contract: a space opened twice or written
// after its end, a file left open, a run out of order, a page that changed after it was handed over are recorded in Broken.
type Memory struct {
	Lim transfer.Limits
	// Refuse is asked before each step ("open", "entry", "hole", "close", "file", "write", "close file"); its error is the
	// target's.
	Refuse func(step string) error

	mu     sync.Mutex
	spaces map[transfer.Space]*MemorySpace
	files  []*MemoryFile
	kept   []kept
	open   int
	broken []string
}

// MemorySpace is one space as it was received.
type MemorySpace struct {
	memory *Memory
	Pages  map[uint64][]byte // by address; nil for a hole's pages
	Flags  map[uint64]uint32
	Closed bool
	above  uint64
}

// kept is what the stream handed over, and what it held then.
type kept struct {
	transfer.Content
	was []byte
}

// MemoryFile is one file as it was received.
type MemoryFile struct {
	memory *Memory
	Kind   string
	Meta   []byte
	Data   bytes.Buffer
	Closed bool
}

var _ transfer.Target = (*Memory)(nil)

// Limits implements transfer.Target.
func (m *Memory) Limits() transfer.Limits { return m.Lim }

// Space is what was received of a space, nil if it was never opened.
func (m *Memory) Space(s transfer.Space) *MemorySpace {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spaces[s]
}

// Spaces counts those opened.
func (m *Memory) Spaces() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.spaces)
}

// Files are those received, in order.
func (m *Memory) Files() []*MemoryFile {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files
}

// Broken says where the contract was not kept, and what is still open.
func (m *Memory) Broken() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.broken
	if m.open != 0 {
		b = append(b, fmt.Sprintf("%d spaces or files are still open", m.open))
	}
	return b
}

// step is called with m.mu held.
func (m *Memory) step(name string) error {
	if m.Refuse == nil {
		return nil
	}
	return m.Refuse(name)
}

func (m *Memory) breach(format string, args ...any) {
	m.broken = append(m.broken, fmt.Sprintf(format, args...))
}

// File implements transfer.Target.
func (m *Memory) File(kind string, meta []byte) (io.WriteCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step("file"); err != nil {
		return nil, err
	}
	f := &MemoryFile{memory: m, Kind: kind, Meta: bytes.Clone(meta)}
	m.files = append(m.files, f)
	m.open++
	return f, nil
}

func (f *MemoryFile) Write(p []byte) (int, error) {
	f.memory.mu.Lock()
	defer f.memory.mu.Unlock()
	if f.Closed {
		f.memory.breach("file %s: write after close", f.Kind)
	}
	if err := f.memory.step("write"); err != nil {
		return 0, err
	}
	return f.Data.Write(p)
}

// Close implements io.Closer.
func (f *MemoryFile) Close() error {
	f.memory.mu.Lock()
	defer f.memory.mu.Unlock()
	if f.Closed {
		f.memory.breach("file %s: closed twice", f.Kind)
	}
	f.Closed = true
	f.memory.open--
	return f.memory.step("close file")
}

// Open implements transfer.Target.
func (m *Memory) Open(s transfer.Space) (transfer.PageWriter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step("open"); err != nil {
		return nil, err
	}
	if m.spaces == nil {
		m.spaces = map[transfer.Space]*MemorySpace{}
	}
	if m.spaces[s] != nil {
		m.breach("space %s: opened twice", s)
	}
	w := &MemorySpace{memory: m, Pages: map[uint64][]byte{}, Flags: map[uint64]uint32{}}
	m.spaces[s] = w
	m.open++
	return w, nil
}

// Entry implements transfer.PageWriter.
func (w *MemorySpace) Entry(addr uint64, flags uint32, content []transfer.Content) error {
	w.memory.mu.Lock()
	defer w.memory.mu.Unlock()
	if err := w.memory.step("entry"); err != nil {
		return err
	}
	for _, c := range content {
		b, err := c.Bytes()
		if err != nil {
			return err
		}
		if len(b) != c.Pages()*transfer.PageSize || len(b) == 0 {
			w.memory.breach("page %#x: %d pages have %d bytes", addr, c.Pages(), len(b))
		}
		b = bytes.Clone(b)
		w.memory.kept = append(w.memory.kept, kept{c, b})
		for page := range slices.Chunk(b, transfer.PageSize) {
			w.add(addr, flags, page)
			addr += transfer.PageSize
		}
	}
	return nil
}

// Hole implements transfer.PageWriter.
func (w *MemorySpace) Hole(addr uint64, flags uint32, n uint64) error {
	w.memory.mu.Lock()
	defer w.memory.mu.Unlock()
	if err := w.memory.step("hole"); err != nil {
		return err
	}
	for i := range n {
		w.add(addr+i*transfer.PageSize, flags, nil)
	}
	return nil
}

func (w *MemorySpace) add(addr uint64, flags uint32, page []byte) {
	if w.Closed || addr < w.above {
		w.memory.breach("page %#x: after %#x, space closed: %t", addr, w.above, w.Closed)
	}
	w.above = addr + transfer.PageSize
	w.Pages[addr], w.Flags[addr] = page, flags
}

// Close implements transfer.PageWriter.
func (w *MemorySpace) Close() error {
	w.memory.mu.Lock()
	defer w.memory.mu.Unlock()
	if w.Closed {
		w.memory.breach("a space was closed twice")
	}
	for i, k := range w.memory.kept {
		if now, err := k.Bytes(); err != nil || !bytes.Equal(now, k.was) {
			w.memory.breach("run %d of those handed over has changed since: %v", i, err)
		}
	}
	w.Closed = true
	w.memory.open--
	return w.memory.step("close")
}
