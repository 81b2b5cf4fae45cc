package transfertest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"drover/internal/errs"
	"drover/transfer"
)

// Connect makes one connection, both ends.
type Connect func() (source, target io.ReadWriteCloser, err error)

// Stream is the conformance suite of the page stream over a sort of connection: whatever a tree does while rounds run, what
// the target has in the end is the tree's memory at the freeze, byte for byte, and both ends say so with one digest.
func Stream(t *testing.T, connect Connect) {
	disk := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		source, target, err := connect()
		if err != nil {
			t.Fatal(err)
		}
		m := &Memory{}
		if rapid.Bool().Draw(t, "spills") {
			m.Lim.Room = transfer.Room{
				Memory: rapid.Uint32Range(0, 40).Draw(t, "slots in memory"), Spill: disk,
				More: func(uint32) error { return errs.New(errs.Refused, "full") },
			}
		}
		type result struct {
			transfer.Result
			err error
		}
		done := make(chan result, 1)
		go func() {
			r, err := transfer.Receive(context.Background(), target, m)
			done <- result{r, err}
		}()
		codec := rapid.SampledFrom([]string{"none", "s2", "zstd"}).Draw(t, "compression")
		s, err := transfer.NewSender(context.Background(), source, transfer.SenderConfig{Compression: codec})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		tree := newTree(s)
		tree.live(t)
		tree.freeze(t)
		root, err := s.Finish(context.Background())
		if err != nil {
			t.Fatalf("the source: %v", err)
		}
		r := <-done
		if r.err != nil || r.Root != root {
			t.Fatalf("the target: %v, the same root: %t", r.err, r.Root == root)
		}
		tree.compare(t, m)
	})
}

// tree is a model of a process tree: spaces of pages that change while rounds run.
type tree struct {
	sender  *transfer.Sender
	spaces  map[transfer.Space]map[uint64][]byte
	offered map[transfer.Space]map[uint64][]byte // as last offered; not since dropped
	files   []string
}

func newTree(s *transfer.Sender) *tree {
	return &tree{sender: s, spaces: map[transfer.Space]map[uint64][]byte{}, offered: map[transfer.Space]map[uint64][]byte{}}
}

const (
	treeSpaces = 3
	treePages  = 40
)

// content is one of few pages, so that pages repeat, move and come back; 0 is the zero page. Some differ from each other in
// a few bytes at one end, or from the zero page.
func content(n int) []byte {
	page := make([]byte, transfer.PageSize)
	if n == 0 {
		return page
	}
	if n%4 != 0 {
		copy(page, bytes.Repeat([]byte(fmt.Sprintf("%07d\n", n%4)), transfer.PageSize/8))
	}
	if n > 4 {
		page[n*(transfer.PageSize/16)] = byte(n)
	}
	page[transfer.PageSize-1] = byte(n % 3)
	return page
}

func drawSpace(t *rapid.T) transfer.Space {
	return transfer.Space{Kind: 1, ID: rapid.Uint64Range(1, treeSpaces).Draw(t, "space")}
}

func must(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// live lets the tree write, offer what it has, end rounds, lose a process, send a file.
func (x *tree) live(t *rapid.T) {
	for range rapid.IntRange(0, 30).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"write", "write", "offer", "offer", "round", "exit", "file"}).Draw(t, "step") {
		case "write":
			x.write(drawSpace(t), rapid.Uint64Range(0, treePages-1).Draw(t, "page"), rapid.SliceOfN(rapid.IntRange(0, 12), 1, 20).Draw(t, "contents"))
		case "offer":
			x.offer(t, drawSpace(t))
		case "round":
			_, err := x.sender.EndRound(context.Background())
			must(t, err)
		case "exit":
			s := drawSpace(t)
			delete(x.spaces, s)
			delete(x.offered, s)
			must(t, x.sender.Drop(s))
		case "file":
			x.file(t)
		}
	}
}

func (x *tree) write(s transfer.Space, at uint64, contents []int) {
	if x.spaces[s] == nil {
		x.spaces[s] = map[uint64][]byte{}
	}
	for i, c := range contents {
		x.spaces[s][(at+uint64(i))*transfer.PageSize] = content(c)
	}
}

func (x *tree) offer(t *rapid.T, s transfer.Space) {
	for _, r := range runs(x.spaces[s]) {
		must(t, x.sender.Offer(s, r.addr, r.data))
	}
	x.offered[s] = maps.Clone(x.spaces[s])
}

func (x *tree) file(t *rapid.T) {
	text := rapid.StringN(0, 50, -1).Draw(t, "text")
	must(t, x.sender.File("volume", []byte(text), int64(len(text)), bytes.NewReader([]byte(text))))
	x.files = append(x.files, text)
}

// freeze maps every page: as a hole if it is as last offered and the draw says so, else with its data.
func (x *tree) freeze(t *rapid.T) {
	for _, s := range slices.SortedFunc(maps.Keys(x.spaces), func(a, b transfer.Space) int { return int(a.ID) - int(b.ID) }) {
		must(t, x.sender.Begin(s))
		for _, r := range runs(x.spaces[s]) {
			holes := rapid.Bool().Draw(t, "holes")
			for i := 0; i < len(r.data); i += transfer.PageSize {
				addr, data := r.addr+uint64(i), r.data[i:i+transfer.PageSize]
				if holes && bytes.Equal(x.offered[s][addr], data) {
					must(t, x.sender.MapHole(s, addr, 1, 1))
				} else {
					must(t, x.sender.Map(s, addr, 1, data))
				}
			}
		}
		if rapid.Bool().Draw(t, "file between") {
			x.file(t)
		}
	}
}

func (x *tree) compare(t *rapid.T, m *Memory) {
	if b := m.Broken(); len(b) > 0 {
		t.Fatalf("the target's contract was not kept: %q", b)
	}
	if m.Spaces() != len(x.spaces) {
		t.Fatalf("%d spaces arrived, not %d", m.Spaces(), len(x.spaces))
	}
	for s, want := range x.spaces {
		got := m.Space(s)
		if got == nil || !maps.EqualFunc(got.Pages, want, bytes.Equal) {
			t.Fatalf("space %s differs", s)
		}
	}
	for i, f := range m.Files() {
		if f.Data.String() != x.files[i] || string(f.Meta) != x.files[i] {
			t.Fatalf("file %d differs", i)
		}
	}
	if len(m.Files()) != len(x.files) {
		t.Fatalf("%d files arrived, not %d", len(m.Files()), len(x.files))
	}
}

type run struct {
	addr uint64
	data []byte
}

// runs puts neighbouring pages together.
func runs(pages map[uint64][]byte) (all []run) {
	for _, addr := range slices.Sorted(maps.Keys(pages)) {
		if n := len(all); n > 0 && all[n-1].addr+uint64(len(all[n-1].data)) == addr {
			all[n-1].data = append(all[n-1].data, pages[addr]...)
			continue
		}
		all = append(all, run{addr, bytes.Clone(pages[addr])})
	}
	return all
}
