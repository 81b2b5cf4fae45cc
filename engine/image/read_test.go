package image_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/engine"
	"drover/engine/fake"
	"drover/engine/image"
)

func space(pid uint64) image.Space { return image.Space{Kind: image.Process, ID: pid} }

// write makes a pagemap and its pages: entries with PEPresent get pages filled with fill.
func write(t *testing.T, dir string, s image.Space, fill byte, entries ...image.Entry) {
	t.Helper()
	w, err := image.NewPagemapWriter(dir, s, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Flags&image.PEPresent != 0 {
			err = w.Run(e.Addr, e.Flags, bytes.Repeat([]byte{fill}, int(e.Pages)*image.PageSize))
		} else {
			err = w.Hole(e.Addr, e.Flags, e.Pages)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReadPagesFollowsParents(t *testing.T) {
	first := t.TempDir()
	second := filepath.Join(first, "second")
	if err := os.Mkdir(second, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", filepath.Join(second, "parent")); err != nil {
		t.Fatal(err)
	}
	write(t, first, space(5), 1, image.Entry{Addr: 0x1000, Pages: 600, Flags: image.PEPresent})
	write(t, second, space(5), 2,
		image.Entry{Addr: 0x2000, Pages: 1, Flags: image.PEPresent},
		image.Entry{Addr: 0x3000, Pages: 500, Flags: image.PEParent},
		image.Entry{Addr: 0x900000, Pages: 3, Flags: image.PELazy})
	var pages, fromParent int
	next := uint64(0x2000)
	err := image.ReadPages(second, space(5), func(addr uint64, data []byte) error {
		if addr != next {
			t.Errorf("run at %#x, want %#x", addr, next)
		}
		next += uint64(len(data))
		pages += len(data) / image.PageSize
		fromParent += bytes.Count(data, []byte{1}) / image.PageSize
		return nil
	})
	if err != nil || pages != 501 || fromParent != 500 {
		t.Errorf("%d pages, %d of them from the parent, %v", pages, fromParent, err)
	}
}

func TestReadPagesMissesAPageThatTheParentLacks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, space(5), 1, image.Entry{Addr: 0x1000, Pages: 1, Flags: image.PEParent})
	err := image.ReadPages(dir, space(5), func(uint64, []byte) error { return nil })
	if !errors.Is(err, engine.ErrBadImage) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsSentComesOutOfTheServer(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	sink := &record{}
	served := make(chan error, 1)
	go func() { served <- image.ServePages(b, sink, nil) }()
	w := image.SendPages(a)
	err := errors.Join(
		w.Open(space(7)), w.Run(0x1000, image.PEPresent, make([]byte, 300*image.PageSize)),
		w.Open(image.Space{Kind: image.Shmem, ID: 9}), w.Hole(0, image.PEParent, 4), w.Close(), <-served)
	if err != nil {
		t.Fatal(err)
	}
	const want = "open 7; run 0x1000 256; run 0x101000 44; open shmem-9; hole 0x0 4; close"
	if got := strings.Join(sink.said, "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestASenderIsToldWhenTheServerGivesUp(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		_ = image.ServePages(b, &record{fail: errors.New("full")}, nil)
		b.Close()
	}()
	if err := image.SendPages(a).Open(space(7)); !errors.Is(err, image.ErrUnacknowledged) {
		t.Errorf("got %v", err)
	}
}

// dumped is the directory of a whole dump, made by the model.
func dumped(t *testing.T) string {
	t.Helper()
	e := fake.New(fake.Config{})
	tree := e.Start(fake.Spec{Cgroup: "g"})
	e.Tick(100)
	e.Stop(tree, 2)
	dir := t.TempDir()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := e.Dump(t.Context(), engine.DumpRequest{Tree: tree, Images: d}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAWholeDumpIsSound(t *testing.T) {
	dir := dumped(t)
	if err := image.Check(dir); err != nil {
		t.Error(err)
	}
	tasks, err := image.ReadTasks(dir)
	if err != nil || len(tasks) != 3 || tasks[0].Parent != 0 || tasks[2].Parent != 1 || len(tasks[0].Threads) != 3 {
		t.Errorf("%+v, %v", tasks, err)
	}
	stopped, err := image.StoppedBefore(dir)
	if err != nil || len(stopped) != 1 || stopped[0] != 2 {
		t.Errorf("stopped before: %v, %v", stopped, err)
	}
}

func TestATornOrForeignDumpIsFoundOut(t *testing.T) {
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	cut := func(name string, by int64) func(string) error {
		return func(dir string) error {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			return os.Truncate(filepath.Join(dir, name), st.Size()-by)
		}
	}
	put := func(name, content string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600) }
	}
	for _, c := range []struct {
		what  string
		spoil func(dir string) error
		names string // the file that the error must name
	}{
		{"no inventory", remove("inventory.img"), "inventory.img"},
		{"an empty inventory", put("inventory.img", ""), "inventory.img"},
		{"another program's inventory", put("inventory.img", "GIF89a..........."), "inventory.img"},
		{"a torn process list", cut("pstree.img", 1), "pstree.img"},
		{"a process list without a process", put("pstree.img", "\x19\x43\x56\x54\x30\x30\x27\x50"), "pstree.img"},
		{"a record longer than any", put("pstree.img", "\x19\x43\x56\x54\x30\x30\x27\x50\xff\xff\xff\x7f"), "pstree.img"},
		{"no core", remove("core-2.img"), "core-2.img"},
		{"a torn core", cut("core-2.img", 1), "core-2.img"},
		{"no memory description", remove("mm-3.img"), "mm-3.img"},
		{"no pagemap", remove("pagemap-1.img"), "pagemap-1.img"},
		{"a torn pagemap", cut("pagemap-1.img", 1), "pagemap-1.img"},
		{"no pages", remove("pages-2.img"), "pages-2.img"},
		{"a page less", cut("pages-2.img", 4096), "pages-2.img"},
		{"a pagemap without a number", put("pagemap-x.img", ""), "pagemap-x.img"},
	} {
		dir := dumped(t)
		if err := c.spoil(dir); err != nil {
			t.Fatal(err)
		}
		if err := image.Check(dir); !errors.Is(err, engine.ErrBadImage) || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// fuzzSeed adds contents of files as seeds.
func fuzzSeed(f *testing.F, contents ...string) {
	for _, s := range contents {
		f.Add([]byte(s))
	}
}

// spoilt is a directory whose file has the fuzzer's content.
func spoilt(t *testing.T, name string, content []byte) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func FuzzPagemap(f *testing.F) {
	const head = "\x19\x43\x56\x54\x25\x40\x08\x56\x02\x00\x00\x00\x08\x03"
	fuzzSeed(f, head, head+"\x09\x00\x00\x00\x08\x80\x20\x10\x00\x20\x04\x28\x02", head+"\x02\x00\x00\x00\x08\xff")
	f.Fuzz(func(t *testing.T, content []byte) {
		_, entries, err := image.ReadPagemap(spoilt(t, "pagemap-1.img", content), space(1))
		if err != nil && !errors.Is(err, engine.ErrBadImage) {
			t.Errorf("error of another kind: %v", err)
		}
		last := uint64(0)
		for _, e := range entries {
			if e.Addr < last || e.End() <= e.Addr {
				t.Errorf("entries do not rise: %+v", entries)
			}
			last = e.End()
		}
	})
}

func FuzzInventory(f *testing.F) {
	fuzzSeed(f, "\x16\x31\x31\x58\x02\x00\x00\x00\x08\x02", "\x16\x31\x31\x58\x02\x00\x00\x00\x6a\x00")
	f.Fuzz(func(t *testing.T, content []byte) {
		if _, err := image.ReadInventory(spoilt(t, "inventory.img", content)); err != nil && !errors.Is(err, engine.ErrBadImage) {
			t.Errorf("error of another kind: %v", err)
		}
	})
}

func FuzzTasks(f *testing.F) {
	const head = "\x19\x43\x56\x54\x30\x30\x27\x50"
	fuzzSeed(f, head+"\x08\x00\x00\x00\x08\x01\x10\x00\x18\x01\x20\x01", head+"\x02\x00\x00\x00\x08\x01")
	f.Fuzz(func(t *testing.T, content []byte) {
		if _, err := image.ReadTasks(spoilt(t, "pstree.img", content)); !errors.Is(err, engine.ErrBadImage) {
			t.Errorf("without any core image: %v", err)
		}
	})
}

// record is a sink that writes down what it is told.
type record struct {
	said []string
	fail error
}

func (r *record) note(what string) error {
	r.said = append(r.said, what)
	return r.fail
}

func (r *record) Open(s image.Space) error { return r.note("open " + s.String()) }
func (r *record) Run(addr uint64, _ uint32, data []byte) error {
	return r.note(fmt.Sprintf("run %#x %d", addr, len(data)/image.PageSize))
}
func (r *record) Hole(addr uint64, _ uint32, n uint64) error {
	return r.note(fmt.Sprintf("hole %#x %d", addr, n))
}
func (r *record) Close() error { return r.note("close") }
