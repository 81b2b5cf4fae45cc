package lazy

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
	"drover/internal/errs"
)

// The tests play CRIU: they register memory of their own process, say that it is that of process 1, and let a Filler fill it.

const pid = 1

// pages are the contents of pages from an address on; one without contents is zeros, and a missing one is nil.
type pages struct {
	from uint64
	all  [][]byte
}

var zeros = []byte{}

func (p *pages) Runs(_, from, to uint64) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		for i, data := range p.all {
			r := Run{Addr: p.from + uint64(i)*image.PageSize, Data: data}
			if data != nil && len(data) == 0 {
				r.Data, r.Zero = nil, 1
			}
			if r.Addr < to && r.pages() > 0 && r.end() > from && !yield(r) {
				return
			}
		}
	}
}

// bed is a restore of n pages that has come to its hold.
type bed struct {
	testing.TB
	killed atomic.Int32
	dir    *os.File
	memory *pages
	filler *Filler
	relay  *Relay
	criu   *net.UnixConn
	mem    []byte // which is to be filled
}

func newBed(t *testing.T, n int) *bed {
	t.Helper()
	return bedWith(t, n, func(b *bed) Memory {
		b.fillMemory()
		return b.memory
	})
}

func (b *bed) fillMemory() {
	for i := range len(b.mem) / image.PageSize {
		b.memory.all = append(b.memory.all, content(i))
	}
}

// bedWith is a bed of n pages that are filled in from the memory that is made for it.
func bedWith(t testing.TB, n int, memory func(*bed) Memory) *bed {
	t.Helper()
	if err := Available(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { dir.Close() })
	b := &bed{TB: t, dir: dir}
	b.mem, err = unix.Mmap(-1, 0, n*image.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	must(t, err)
	t.Cleanup(func() { unix.Munmap(b.mem) }) // after the filler is closed: an event would wait for it
	b.memory = &pages{from: b.addr(0)}
	w, err := image.NewPagemapWriter(dir.Name(), image.Space{Kind: image.Process, ID: pid}, 1)
	must(t, err)
	must(t, w.Hole(b.addr(0), image.PELazy, uint64(n)))
	must(t, w.Close())
	mm := binary.LittleEndian.AppendUint32(nil, 0x54564319) // criu/include/magic.h
	mm = binary.LittleEndian.AppendUint32(mm, 0x57492820)
	must(t, os.WriteFile(filepath.Join(dir.Name(), "mm-1.img"), binary.LittleEndian.AppendUint32(mm, 0), 0o600)) // without mappings
	b.filler, err = Listen(dir.Name(), Config{Memory: Known(memory(b)), Kill: b.kill, Eager: true})
	must(t, err)
	t.Cleanup(b.filler.Close)
	b.relay, err = NewRelay(dir, b.kill)
	must(t, err)
	t.Cleanup(func() { b.relay.Close() })
	must(t, b.relay.Rebuilt())
	b.criu, err = net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: within(dir, criuSocket)})
	must(t, err)
	t.Cleanup(func() { b.criu.Close() })
	return b
}

// kill counts instead of ending this process.
func (b *bed) kill() error { b.killed.Add(1); return nil }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(i int) []byte {
	page := make([]byte, image.PageSize)
	binary.LittleEndian.PutUint64(page, uint64(i)+1)
	binary.LittleEndian.PutUint64(page[image.PageSize-8:], uint64(i)+1)
	return page
}

func (b *bed) addr(page int) uint64 {
	return uint64(uintptr(unsafe.Pointer(&b.mem[0]))) + uint64(page)*image.PageSize
}

// register makes the userfaultfd of the pages [from, to).
func (b *bed) register(from, to int) int {
	b.Helper()
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if e != 0 {
		b.Fatal(e)
	}
	api := [3]uint64{apiVersion, criuFeatures}
	must(b, ioctl(int(fd), uffdioAPI, unsafe.Pointer(&api)))
	reg := [4]uint64{b.addr(from), uint64(to-from) * image.PageSize, registerMissing, 0}
	must(b, ioctl(int(fd), uffdioRegister, unsafe.Pointer(&reg)))
	return int(fd)
}

// send says on CRIU's connection that process id has this userfaultfd, which is closed here.
func (b *bed) send(id int32, fd int) {
	b.Helper()
	b.say(id)
	_, _, err := b.criu.WriteMsgUnix([]byte{0}, unix.UnixRights(fd), nil)
	must(b, err)
	unix.Close(fd)
}

func (b *bed) say(n int32) {
	b.Helper()
	_, err := b.criu.Write(binary.NativeEndian.AppendUint32(nil, uint32(n)))
	must(b, err)
}

// ready registers all pages and hands them over.
func (b *bed) ready() { b.send(pid, b.register(0, len(b.mem)/image.PageSize)) }

func (b *bed) fill() (Stats, error) {
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	return b.filler.Fill(ctx, nil)
}

func (b *bed) wantContent(page int) {
	b.Helper()
	got, want := b.mem[page*image.PageSize:][:image.PageSize], b.memory.all[page]
	if len(want) == 0 {
		want = make([]byte, image.PageSize)
	}
	if string(got) != string(want) {
		b.Errorf("page %d begins with %x and ends with %x", page, got[:8], got[image.PageSize-8:])
	}
}

// wantFailure fills, and fails unless that fails with these words and the engine hears nothing of a success.
func (b *bed) wantFailure(says string) {
	b.Helper()
	if _, err := b.fill(); err == nil || !strings.Contains(err.Error(), says) {
		b.Errorf("got %v, want %q", err, says)
	}
	if b.relay.Release() == nil {
		b.Error("the engine would commit")
	}
}

func TestEveryPageIsPutInPlace(t *testing.T) {
	const n = 3*chunkBytes/image.PageSize + 5
	b := newBed(t, n)
	for i := range n {
		if i%7 == 3 {
			b.memory.all[i] = zeros
		}
	}
	b.ready()
	if err := b.relay.Release(); err == nil {
		t.Error("it is filled before Fill")
	}
	stats, err := b.fill()
	must(t, err)
	if err := b.relay.Release(); err != nil {
		t.Error(err)
	}
	for i := range n {
		b.wantContent(i)
	}
	if stats.Bytes != n*image.PageSize || stats.Zeros == 0 || stats.Zeros > stats.Bytes/6 || stats.Faults != 0 {
		t.Errorf("stats: %+v", stats)
	}
	b.filler.Close()
	b.say(restoreFinished) // the engine's copy of the connection takes it
	if _, err := b.fill(); errs.KindOf(err) != errs.Failed && errs.KindOf(err) != errs.Conflict {
		t.Errorf("filled again: %v", err)
	}
	if left, _ := os.ReadDir(b.dir.Name()); len(left) != 3 {
		t.Errorf("left: %v", left)
	}
}

func TestEarlyFaultsAreAnswered(t *testing.T) {
	b := newBed(t, 8)
	b.memory.all[5] = zeros
	b.ready()
	for _, i := range []int{6, 5, 0} {
		b.touch(i)
	}
	stats, err := b.fill()
	must(t, err)
	for i := range b.memory.all {
		b.wantContent(i)
	}
	if stats.Faults != 3 {
		t.Errorf("%d faults", stats.Faults)
	}
}

func TestARunMayReachOverMappings(t *testing.T) {
	b := newBed(t, 300)
	must(t, unix.Mprotect(b.mem[7*image.PageSize:100*image.PageSize], unix.PROT_READ))
	b.ready()
	one := make([]byte, 0, 300*image.PageSize) // all pages in one run
	for _, page := range b.memory.all {
		one = append(one, page...)
	}
	all := b.memory.all
	b.memory.all = [][]byte{one}
	_, err := b.fill()
	must(t, err)
	b.memory.all = all
	for i := range all {
		b.wantContent(i)
	}
}

func TestWhatWouldLoseAPageFails(t *testing.T) {
	for _, c := range []struct {
		name, says string
		spoil      func(b *bed)
	}{
		{"a page that nobody has", "is missing", func(b *bed) {
			b.memory.all[3] = nil
			b.ready()
		}},
		{"the last page", "is missing", func(b *bed) {
			b.memory.all[7] = nil
			b.ready()
		}},
		{"an early fault on a page that nobody has", "is missing", func(b *bed) {
			b.memory.all[3] = nil
			b.ready()
			b.touch(3) // it is not left waiting, though not for its page
		}},
		{"a process that the images do not have", "no memory of it", func(b *bed) { b.send(2, b.register(0, 8)) }},
		{"a process that comes twice", "before", func(b *bed) {
			b.send(pid, b.register(0, 4))
			b.send(pid, b.register(4, 8))
			<-b.failed()
		}},
		{"something else than a userfaultfd", "not one", func(b *bed) {
			fd, err := unix.Open("/dev/zero", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			must(b, err)
			b.send(pid, fd)
		}},
		{"no pid", "in place of a pid", func(b *bed) { b.say(maxPid + 1) }},
		{"CRIU's end", "CRIU gave the restore up", func(b *bed) { b.criu.Close(); <-b.failed() }},
		{"the engine's end", "the engine gave the restore up", func(b *bed) { b.relay.Close(); <-b.failed() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, 8)
			c.spoil(b)
			b.wantFailure(c.says)
			b.filler.Close() // before the memory is unmapped
		})
	}
}

// touch lets the kernel read a page, which waits until it is there. The Go runtime could not stop a goroutine that waited so.
func (b *bed) touch(page int) {
	fd, err := unix.MemfdCreate("touch", unix.MFD_CLOEXEC)
	if err != nil {
		b.Error(err)
		return
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, b.mem[page*image.PageSize:][:image.PageSize]); err != nil {
		b.Error(err)
	}
}

// failed is closed when the filler knows that something is wrong.
func (b *bed) failed() <-chan struct{} {
	known := make(chan struct{})
	go func() {
		defer close(known)
		for {
			b.filler.mu.Lock()
			err, come := b.filler.err, b.filler.come
			b.filler.mu.Unlock()
			if err != nil {
				return
			}
			<-come
		}
	}()
	return known
}

func TestFillEndsWithItsContext(t *testing.T) {
	b := newBed(t, 8) // whose userfaultfd does not come
	b.say(-2)         // nor does a zombie's
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.filler.Fill(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestARestoreWithoutAFillerIsRefused(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	must(t, err)
	defer dir.Close()
	if _, err := NewRelay(dir, nil); errs.KindOf(err) != errs.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestOnlyRootIsListenedTo(t *testing.T) {
	if os.Getenv("DROVER_LAZY_STRANGER") != "" {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: os.Getenv("DROVER_LAZY_STRANGER")})
		must(t, err)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("it was answered")
		}
		return
	}
	dir, err := os.MkdirTemp("/tmp", "lazy")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	f, err := Listen(dir, Config{Memory: Known(&pages{}), Kill: func() error { return nil }})
	must(t, err)
	defer f.Close()
	relay, err := NewRelay(d, nil)
	must(t, err)
	defer relay.Close()
	path := filepath.Join(dir, criuSocket)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket is %v, %v", info.Mode(), err)
	}
	must(t, os.Chmod(path, 0o666)) // so that the peer's name is all that counts
	exe, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	binary := filepath.Join(dir, "stranger")
	must(t, os.WriteFile(binary, exe, 0o755))
	cmd := exec.Command(binary, "-test.run", "^"+t.Name()+"$")
	cmd.Env = []string{"DROVER_LAZY_STRANGER=" + path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestWhatFailsAfterTheWordKillsTheTree: it may run by then.
func TestWhatFailsAfterTheWordKillsTheTree(t *testing.T) {
	for _, c := range []struct {
		name, says string
		spoil      func(b *bed)
	}{
		{"a page that is there already", "there already", func(b *bed) {
			b.mem[2*image.PageSize] = 1
			b.ready()
		}},
		{"a page that is not registered", "has no place", func(b *bed) { b.send(pid, b.register(0, 7)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, 8)
			c.spoil(b)
			if _, err := b.fill(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if b.killed.Load() == 0 {
				t.Error("the tree was not killed")
			}
			b.filler.Close()
			<-b.relay.over
			if err := b.relay.Release(); !errors.Is(err, engine.ErrLost) {
				t.Errorf("the engine would commit: %v", err)
			}
		})
	}
}

// paced has pages slowly, so that other things happen meanwhile.
type paced struct{ *pages }

func (p paced) Runs(pid, from, to uint64) iter.Seq[Run] {
	if to-from == chunkBytes {
		<-time.After(time.Millisecond)
	}
	return p.pages.Runs(pid, from, to)
}

// filling is a bed of n pages that come slowly and are being filled in, of a tree that may run; done has how that ended, once.
func filling(t *testing.T, n int) (b *bed, done <-chan error) {
	t.Helper()
	b = bedWith(t, n, func(b *bed) Memory {
		b.fillMemory()
		return paced{b.memory}
	})
	b.ready()
	ended := make(chan error, 1)
	go func() { _, err := b.fill(); ended <- err }()
	for b.relay.Release() != nil {
		runtime.Gosched()
	}
	return b, ended
}

// move moves had pages to where has of them have room, and maps the hole that they leave anew.
func (b *bed) move(from, to, had, has int) {
	b.Helper()
	_, _, e := unix.Syscall6(unix.SYS_MREMAP, uintptr(b.addr(from)), uintptr(had)*image.PageSize, uintptr(has)*image.PageSize,
		unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, uintptr(b.addr(to)), 0)
	if e != 0 {
		b.Fatal(e)
	}
	_, _, e = unix.Syscall6(unix.SYS_MMAP, uintptr(b.addr(from)), uintptr(had)*image.PageSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, ^uintptr(0), 0)
	if e != 0 {
		b.Fatal(e)
	}
}

// TestWhatATreeDoesMeanwhileIsFollowed drops, unmaps and moves memory while it is being filled.
func TestWhatATreeDoesMeanwhileIsFollowed(t *testing.T) {
	const chunk = chunkBytes / image.PageSize
	b, done := filling(t, 100*chunk)
	page := func(i int) []byte { return b.mem[i*image.PageSize:][:image.PageSize] }
	must(t, unix.Madvise(b.mem[5*image.PageSize:9*image.PageSize], unix.MADV_DONTNEED))
	must(t, unix.Madvise(b.mem[90*chunk*image.PageSize:(91*chunk+3)*image.PageSize], unix.MADV_DONTNEED))
	b.touch(99*chunk + 7)
	// The last 20 pages but one go to where pages 60 chunks in were, and leave a hole that is mapped anew.
	b.move(98*chunk, 60*chunk+1, 20, 20)
	must(t, <-done)
	b.say(restoreFinished)
	b.filler.Close()
	empty := string(make([]byte, image.PageSize))
	for i := range b.memory.all {
		want := string(b.memory.all[i])
		switch {
		case i >= 5 && i < 9 || i >= 90*chunk && i < 91*chunk+3 || i >= 98*chunk && i < 98*chunk+20:
			want = empty
		case i >= 60*chunk+1 && i < 60*chunk+21:
			want = string(b.memory.all[98*chunk+i-60*chunk-1])
		}
		if string(page(i)) != want {
			t.Fatalf("page %d begins with %x", i, page(i)[:8])
		}
	}
	if b.killed.Load() > 0 {
		t.Error("the tree was killed")
	}
}
