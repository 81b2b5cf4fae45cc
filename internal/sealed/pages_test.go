package sealed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

func create(t testing.TB, pages uint32) *Pages {
	t.Helper()
	p, err := Create(t.TempDir(), pages)
	must(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// page is a page full of a byte.
func page(b byte) []byte { return bytes.Repeat([]byte{b}, PageSize) }

// raw is what stands on the disk.
func raw(t testing.TB, p *Pages, n uint32) []byte {
	t.Helper()
	b := make([]byte, PageSize)
	_, err := p.data.ReadAt(b, int64(n)*PageSize)
	must(t, err)
	return b
}

func TestPagesAreReadByAnotherProcess(t *testing.T) {
	p := create(t, 10)
	for n, b := range []byte("abcdef") {
		must(t, p.Write(uint32(n+2), page(b)))
	}
	must(t, p.Write(3, page('x'))) // again
	other, err := Open(p.Files())
	must(t, err)
	defer other.Release()
	buf := make([]byte, 3*PageSize)
	must(t, other.Read(2, buf))
	if want := append(append(page('a'), page('x')...), page('c')...); !bytes.Equal(buf, want) {
		t.Errorf("read %q, %q, %q", buf[0], buf[PageSize], buf[2*PageSize])
	}
	if other.Len() != 10 {
		t.Errorf("it has %d pages", other.Len())
	}
}

// TestWhatIsWrittenTwiceIsEncryptedAnew: a place that is written again under the same keystream would give away both pages.
func TestWhatIsWrittenTwiceIsEncryptedAnew(t *testing.T) {
	p := create(t, 2)
	seen := map[string]bool{}
	for range 3 {
		for n := range uint32(2) {
			must(t, p.Write(n, page(0)))
			for block := range slices.Chunk(raw(t, p, n), 16) {
				if seen[string(block)] {
					t.Fatal("a block of ciphertext comes twice for pages that are the same")
				}
				seen[string(block)] = true
			}
		}
	}
}

func TestTheFileHasNoNameAndIsRootsAlone(t *testing.T) {
	dir := t.TempDir()
	p, err := Create(dir, 4)
	must(t, err)
	defer p.Close()
	must(t, p.Write(0, page('a')))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
	for _, f := range []*os.File{p.data} {
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		if st.Mode&0o777 != 0o600 || st.Nlink != 0 {
			t.Errorf("mode %o, %d names", st.Mode&0o777, st.Nlink)
		}
	}
	if bytes.Contains(raw(t, p, 0), []byte("aaaa")) {
		t.Error("it is on the disk as it is")
	}
}

func TestWhatIsNotWhatWasWrittenIsNotRead(t *testing.T) {
	buf := make([]byte, PageSize)
	for _, c := range []struct {
		what  string
		spoil func(p *Pages) error
	}{
		{"a bit on the disk", func(p *Pages) error {
			b := raw(t, p, 1)
			b[77] ^= 4
			_, err := p.data.WriteAt(b, PageSize)
			return err
		}},
		{"an older page", func(p *Pages) error {
			old := raw(t, p, 1)
			_, err := p.data.WriteAt(old, PageSize)
			return errors.Join(p.Write(1, page('z')), err, func() error { _, err := p.data.WriteAt(old, PageSize); return err }())
		}},
		{"another page's", func(p *Pages) error { _, err := p.data.WriteAt(raw(t, p, 0), PageSize); return err }},
		{"a file cut short", func(p *Pages) error { return p.data.Truncate(PageSize + 5) }},
	} {
		p := create(t, 3)
		must(t, p.Write(0, page('a')))
		must(t, p.Write(1, page('b')))
		must(t, c.spoil(p))
		if err := p.Read(1, buf); errs.KindOf(err) != errs.Failed {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	p := create(t, 3)
	must(t, p.Write(0, page('a')))
	for what, err := range map[string]error{
		"a page too many":        p.Write(3, page('a')),
		"half a page":            p.Write(0, page('a')[:2048]),
		"reading past the end":   p.Read(2, make([]byte, 2*PageSize)),
		"reading half a page":    p.Read(0, make([]byte, 100)),
		"what was never written": errors.Join(p.Write(1, page('b')), p.Write(2, page('c')), unwrite(p, 1), p.Read(0, make([]byte, 3*PageSize))),
	} {
		if err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	for _, pages := range []uint32{0, mostPages + 1} {
		if _, err := Create(t.TempDir(), pages); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%d pages: %v", pages, err)
		}
	}
	if _, err := Create(filepath.Join(t.TempDir(), "none"), 1); err == nil {
		t.Error("a directory that is not there was taken")
	}
	if err := Check("/proc"); err == nil {
		t.Error("/proc was taken for a disk")
	}
	if err := Check("/dev/shm"); errs.KindOf(err) != errs.Invalid {
		t.Errorf("/dev/shm was taken for a disk: %v", err)
	}
}

func unwrite(p *Pages, n uint32) error { clear(p.row(n)); return nil }

// FuzzTable: whatever table another process is given, no page is read that was not written under it.
func FuzzTable(f *testing.F) {
	f.Add([]byte{}, uint16(0))
	head := binary.NativeEndian.AppendUint64(nil, magic)
	head = binary.NativeEndian.AppendUint64(head, 2)
	f.Add(head, uint16(headSize+2*rowSize))
	f.Add(head, uint16(headSize+3*rowSize))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		table, err := os.CreateTemp(dir, "table")
		must(t, err)
		defer os.Remove(table.Name())
		defer table.Close()
		_, err = table.Write(b)
		must(t, err)
		must(t, table.Truncate(int64(size)))
		data, err := os.CreateTemp(dir, "data")
		must(t, err)
		defer os.Remove(data.Name())
		defer data.Close()
		must(t, data.Truncate(64*PageSize))
		p, err := Open(data, table)
		if err != nil {
			return
		}
		defer p.Release()
		if int(p.Len()) != (int(size)-headSize)/rowSize {
			t.Fatalf("%d pages in %d bytes", p.Len(), size)
		}
		for n := range p.Len() {
			if p.Read(n, make([]byte, PageSize)) == nil {
				t.Fatalf("page %d was read", n)
			}
		}
	})
}

// BenchmarkPages is what a page costs to keep on a disk, and to take from there while the kernel still has it in memory.
func BenchmarkPages(b *testing.B) {
	const pages, run = 1 << 15, 64
	p := create(b, pages)
	content := page('a')
	for n := range uint32(pages) {
		must(b, p.Write(n, content))
	}
	b.Run("write", func(b *testing.B) {
		b.SetBytes(PageSize)
		for n := uint32(0); b.Loop(); n++ {
			must(b, p.Write(n%pages, content))
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(run * PageSize)
		buf := make([]byte, run*PageSize)
		for n := uint32(0); b.Loop(); n += run {
			must(b, p.Read(n%pages, buf))
		}
	})
}
