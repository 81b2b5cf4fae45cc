package lazy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/sealed"
)

// fileOf is a file in memory with so many pages, page n as content has it.
func fileOf(t testing.TB, pages int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("pages", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "pages")
	t.Cleanup(func() { f.Close() })
	for i := range pages {
		if _, err := f.Write(content(i)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// open is OpenMemory with the index.
func open(t testing.TB, pages *os.File, x Index) *FileMemory {
	t.Helper()
	m, err := OpenMemory(Files{Pages: pages, Index: indexFile(t, x)})
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// held is how many pages of a file take memory.
func held(t testing.TB, f *os.File) int {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Blocks * 512 / image.PageSize)
}

// TestAPageGoesWithItsLastUse draws which page stands where in two processes, and in which order they are put in place and forked.
func TestAPageGoesWithItsLastUse(t *testing.T) {
	const pages, addresses = 40, 64
	for seed := range uint64(200) {
		draw := rand.New(rand.NewPCG(seed, 0))
		f := fileOf(t, pages)
		x, left := Index{}, map[int]int{} // how often each page is wanted
		type use struct{ pid, addr uint64 }
		var wanted []use
		for pid := range uint64(2) {
			for addr := range uint64(addresses) {
				e := Extent{Addr: addr * pageSize, Pages: 1, Offset: Zeros}
				if n := draw.IntN(pages + 4); n < pages {
					e.Offset = uint64(n) * pageSize
					left[n]++
				}
				x.Add(pid, e)
				wanted = append(wanted, use{pid, addr * pageSize})
			}
		}
		m := open(t, f, x)
		draw.Shuffle(len(wanted), func(i, j int) { wanted[i], wanted[j] = wanted[j], wanted[i] })
		unused := pages - len(left) // of those nobody can say that they are not wanted any more
		for forks := 20; len(wanted) > 0; wanted = wanted[1:] {
			w := wanted[0]
			for r := range m.Runs(w.pid, w.addr, w.addr+pageSize) {
				if r.Data == nil {
					continue
				}
				n := int(r.Data[0]) - 1
				if !bytes.Equal(r.Data, content(n)) {
					t.Fatalf("seed %d: a page that is wanted begins with %x", seed, r.Data[:8])
				}
				if forks > 0 && draw.IntN(4) == 0 {
					forks--
					m.Again(w.pid, w.addr, w.addr+pageSize)
					wanted = append(wanted, w)
					left[n]++
				}
				if left[n]--; left[n] == 0 {
					delete(left, n)
				}
			}
			m.Done(w.pid, w.addr, w.addr+pageSize)
			m.GiveBack()
			if got := held(t, f); got != len(left)+unused {
				t.Fatalf("seed %d: %d pages take memory, %d are wanted and %d never were", seed, got, len(left), unused)
			}
		}
		m.Close()
		f.Close()
	}
}

func TestRunsOfPagesGoTogether(t *testing.T) {
	f := fileOf(t, 10)
	x := Index{}
	x.Add(1, Extent{Addr: 0, Pages: 10})
	x.Add(1, Extent{Addr: 10 * pageSize, Pages: 1, Offset: 4 * pageSize}) // a second time
	m := open(t, f, x)
	m.Done(1, pageSize, 9*pageSize)
	m.GiveBack()
	if got := held(t, f); got != 3 {
		t.Errorf("%d pages take memory, not the first, the last and the one that is wanted twice", got)
	}
	m.Done(1, 10*pageSize, 11*pageSize)
	m.Done(2, 0, 10*pageSize) // which has none
	m.GiveBack()
	if got := held(t, f); got != 2 {
		t.Errorf("%d pages take memory, not 2", got)
	}
}

// TestAFileThatIsOnlyReadStays: a file that cannot be given back costs memory, and nothing else.
func TestAFileThatIsOnlyReadStays(t *testing.T) {
	f := fileOf(t, 4)
	read, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	must(t, err)
	defer read.Close()
	x := Index{}
	x.Add(1, Extent{Addr: 0, Pages: 4})
	m := open(t, read, x)
	m.Done(1, 0, 4*pageSize)
	m.GiveBack()
	if got := held(t, f); got != 4 {
		t.Errorf("%d pages take memory, not 4", got)
	}
}

// TestFillingGivesBackWhatIsInPlace fills memory from a file of pages, half of which stand in two places.
func TestFillingGivesBackWhatIsInPlace(t *testing.T) {
	f := fileOf(t, 64)
	var m *FileMemory
	b := bedWith(t, 96, func(b *bed) Memory {
		x := Index{}
		x.Add(pid, Extent{Addr: b.addr(0), Pages: 64})
		x.Add(pid, Extent{Addr: b.addr(64), Pages: 32, Offset: 16 * pageSize})
		m = open(t, f, x)
		return m
	})
	b.ready()
	b.touch(70)
	_, err := b.fill()
	must(t, err)
	m.GiveBack() // what has become free last
	for i := range 96 {
		n := i
		if i >= 64 {
			n -= 48
		}
		if !bytes.Equal(b.mem[i*image.PageSize:][:image.PageSize], content(n)) {
			t.Errorf("page %d begins with %x", i, b.mem[i*image.PageSize:][:8])
		}
	}
	if got := held(t, f); got != 0 {
		t.Errorf("%d pages take memory when all are in place", got)
	}
}

// BenchmarkFill fills 1 GiB from a file in memory that gives pages back, from one that does not, and from a disk: how long it takes, and
// how much the file in memory and the filled memory are together at most.
func BenchmarkFill(b *testing.B) {
	const pages = 1 << 18
	inMemory := func(open func(path string) (*os.File, error)) func(*bed) (Files, *os.File) {
		return func(bed *bed) (Files, *os.File) {
			f := fileOf(bed, pages)
			file, err := open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
			must(bed, err)
			bed.Cleanup(func() { file.Close() })
			x := Index{}
			x.Add(pid, Extent{Addr: bed.addr(0), Pages: pages})
			return Files{Pages: file, Index: indexFile(bed, x)}, f
		}
	}
	for _, c := range []struct {
		what  string
		files func(*bed) (Files, *os.File)
	}{
		{"gives back", inMemory(func(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) })},
		{"keeps", inMemory(os.Open)},
		{"from a disk", func(bed *bed) (Files, *os.File) {
			f, _ := spilled(bed, pages, 1)
			return f, f.Pages
		}},
	} {
		b.Run(c.what, func(b *testing.B) {
			var f *os.File
			bed := bedWith(b, pages, func(bed *bed) Memory {
				var files Files
				files, f = c.files(bed)
				m, err := OpenMemory(files)
				must(b, err)
				return m
			})
			bed.filler.config.Eager = false // as when the tree runs meanwhile
			bed.ready()
			var mu sync.Mutex
			peak, next := uint64(0), uint64(0)
			go func() { // it is released as soon as it may be
				for bed.relay.Release() != nil {
					runtime.Gosched()
				}
				_, _ = bed.criu.Write(binary.NativeEndian.AppendUint32(nil, restoreFinished))
			}()
			stats, err := bed.filler.Fill(b.Context(), func(done, _ uint64) {
				mu.Lock()
				defer mu.Unlock()
				if done >= next {
					peak, next = max(peak, done+uint64(held(b, f)*image.PageSize)), done+32<<20
				}
			})
			must(b, err)
			b.ReportMetric(float64(stats.Took.Microseconds())/1000, "ms")
			b.ReportMetric(float64(peak>>20), "MiB-at-most")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// indexFile is a file with the index.
func indexFile(t testing.TB, x Index) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "index")
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, WriteIndex(f, x))
	return f
}

// spilled is a memory of n pages of which the last stand on a disk, as the first do in a file in memory; one extent reaches from one
// into the other.
func spilled(b *bed, n, inMemory int) (Files, *sealed.Pages) {
	b.Helper()
	s, err := sealed.Create(b.TempDir(), uint32(n-inMemory))
	must(b, err)
	b.Cleanup(func() { s.Close() })
	for i := inMemory; i < n; i++ {
		must(b, s.Write(uint32(i-inMemory), content(i)))
	}
	x := Index{}
	x.Add(pid, Extent{Addr: b.addr(0), Pages: uint64(n)})
	f := Files{Pages: fileOf(b, inMemory), Index: indexFile(b, x)}
	f.Spilled, f.Seals = s.Files()
	return f, s
}

func TestPagesComeFromADisk(t *testing.T) {
	const n, inMemory = 300, 100
	var m *FileMemory
	b := bedWith(t, n, func(b *bed) Memory {
		f, _ := spilled(b, n, inMemory)
		var err error
		m, err = OpenMemory(f)
		must(t, err)
		b.fillMemory() // to compare with
		return m
	})
	defer m.Close()
	must(t, unix.Mprotect(b.mem[7*image.PageSize:130*image.PageSize], unix.PROT_READ)) // so that a chunk goes over mappings
	b.ready()
	b.touch(200)
	b.touch(3)
	stats, err := b.fill()
	must(t, err)
	for i := range n {
		b.wantContent(i)
	}
	if stats.Zeros != 0 || stats.Bytes != (n-2)*image.PageSize || stats.Faults != 2 {
		t.Errorf("%+v", stats)
	}
}

func TestAPageThatTheDiskHasChangedKillsTheTree(t *testing.T) {
	var m *FileMemory
	b := bedWith(t, 100, func(b *bed) Memory {
		f, s := spilled(b, 100, 10)
		data, _ := s.Files()
		_, err := data.WriteAt([]byte("xyz"), 50*image.PageSize)
		must(t, err)
		m, err = OpenMemory(f)
		must(t, err)
		return m
	})
	defer m.Close()
	b.ready()
	if _, err := b.fill(); err == nil || !strings.Contains(err.Error(), "is not what was written") {
		t.Errorf("got %v", err)
	}
	if b.killed.Load() == 0 {
		t.Error("the tree was not killed")
	}
}

func TestAnIndexBeyondItsFilesIsRefused(t *testing.T) {
	b := newBed(t, 20)
	f, _ := spilled(b, 20, 10)
	short, err := sealed.Create(t.TempDir(), 9)
	must(t, err)
	defer short.Close()
	for what, files := range map[string]Files{
		"no disk":          {Pages: f.Pages, Index: f.Index},
		"less on the disk": {Pages: f.Pages, Index: f.Index, Spilled: first(short.Files()), Seals: second(short.Files())},
		"no table":         {Pages: f.Pages, Index: f.Index, Spilled: f.Spilled, Seals: f.Pages},
	} {
		if m, err := OpenMemory(files); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v, %v", what, m, err)
		}
	}
}

func first(a, _ *os.File) *os.File  { return a }
func second(_, b *os.File) *os.File { return b }
