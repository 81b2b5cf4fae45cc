package track

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
)

// The test's own memory is what is tracked: the process that looks is the one that is looked at.
func self() engine.Tree { return engine.Tree{Pid: os.Getpid()} }

func mapped(t *testing.T, pages, flags int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, pages*image.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return b
}

// emitted runs a round and returns the pages of b that it handed over, by index. Those of shared memory go by their offset.
func emitted(t *testing.T, tr Tracker, b []byte, object uint64) map[int]bool {
	t.Helper()
	want, base := image.Space{Kind: image.Process, ID: uint64(os.Getpid())}, uint64(addressOf(b))
	if object != 0 {
		want, base = image.Space{Kind: image.Shmem, ID: object}, 0
	}
	got := map[int]bool{}
	_, err := tr.Round(context.Background(), func(sp image.Space, addr uint64, data []byte) error {
		if sp != want {
			return nil
		}
		for i := 0; i < len(data); i += image.PageSize {
			a := addr + uint64(i)
			if a < base || a >= base+uint64(len(b)) {
				continue
			}
			n := int(a-base) / image.PageSize
			got[n] = true
			if !bytes.Equal(data[i:i+image.PageSize], b[n*image.PageSize:(n+1)*image.PageSize]) {
				t.Errorf("page %d differs", n)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestHashHandsOverWhatChanged(t *testing.T) {
	for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(name, func(t *testing.T) {
			b := mapped(t, 1000, flags)
			for _, n := range []int{0, 1, 2, 300, 999} {
				b[n*image.PageSize] = byte(n + 1)
			}
			object := uint64(0)
			if flags == unix.MAP_SHARED {
				object = inodeAt(t, b)
			}
			tr := NewHash(self())
			defer tr.Close()
			if got := emitted(t, tr, b, object); len(got) != 5 || !got[300] {
				t.Errorf("first round: %v, want the five pages that exist", got)
			}
			if got := emitted(t, tr, b, object); len(got) != 0 {
				t.Errorf("nothing was written, but %v came", got)
			}
			b[300*image.PageSize+17]++
			b[500*image.PageSize] = 1
			if got := emitted(t, tr, b, object); len(got) != 2 || !got[300] || !got[500] {
				t.Errorf("got %v, want pages 300 and 500", got)
			}
		})
	}
}

// inodeAt is the inode of what is mapped at b.
func inodeAt(t *testing.T, b []byte) uint64 {
	t.Helper()
	p, err := openProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	maps, err := p.maps()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		if m.start <= uint64(addressOf(b)) && uint64(addressOf(b)) < m.end {
			return m.inode
		}
	}
	t.Fatal("not mapped")
	return 0
}

func TestPagemapWalkFindsWhatScanFinds(t *testing.T) {
	b := mapped(t, 200, unix.MAP_PRIVATE)
	for _, n := range []int{3, 4, 5, 100, 199} {
		b[n*image.PageSize] = 1
	}
	p, err := openProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	base := uint64(addressOf(b))
	m := mapping{start: base, end: base + uint64(len(b)), perm: "rw-p"}
	collect := func(look func(mapping, func(uint64, uint64) error) error) (pages []uint64) {
		if err := look(m, func(s, e uint64) error {
			for ; s < e; s += image.PageSize {
				pages = append(pages, (s-base)/image.PageSize)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	for name, look := range map[string]func(mapping, func(uint64, uint64) error) error{"walk": p.walk, "populated": p.populated} {
		if got := collect(look); !slices.Equal(got, []uint64{3, 4, 5, 100, 199}) {
			t.Errorf("%s found %v", name, got)
		}
	}
}

func TestHashOfADeadTreeFails(t *testing.T) {
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	_, err := NewHash(engine.Tree{Pid: c.Process.Pid}).Round(context.Background(), nil)
	if err == nil {
		t.Error("no error")
	}
}

func TestChooseNamesWhatWorks(t *testing.T) {
	with, without, both := engine.Features{Engine: "criu", SoftDirty: true}, engine.Features{Engine: "criu"}, engine.Features{Engine: "criu", SoftDirty: true, WPAsync: true}
	model := engine.Features{Engine: "fake", WPAsync: true}
	for _, c := range []struct {
		f     engine.Features
		asked string
		want  string
	}{
		{with, "", "softdirty"}, {without, "", "hash"}, {both, "", "wp"}, {model, "", "hash"}, {with, "hash", "hash"}, {both, "softdirty", "softdirty"},
		{both, "wp", "wp"}, {with, "wp", ""}, {without, "softdirty", ""}, {with, "magic", ""},
	} {
		got, err := Choose(c.f, c.asked)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("Choose(%+v, %q) = %q, %v", c.f, c.asked, got, err)
		}
	}
}

func TestEveryTrackerButTheLastHasOneToFallBackOn(t *testing.T) {
	soft := engine.Features{Engine: "criu", SoftDirty: true, WPAsync: true}
	for _, c := range []struct {
		f    engine.Features
		name string
		want []string
	}{
		{soft, "wp", []string{"softdirty", "hash"}}, {engine.Features{WPAsync: true}, "wp", []string{"hash"}}, {soft, "softdirty", []string{"hash"}}, {soft, "hash", nil},
	} {
		if got := After(c.f, c.name); !slices.Equal(got, c.want) {
			t.Errorf("after %s comes %v, want %v", c.name, got, c.want)
		}
	}
}

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
