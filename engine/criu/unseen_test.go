package criu

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
)

func TestPrivateMemoryOfAProcessIsFoundInItsMaps(t *testing.T) {
	private := mapped(t, 1, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	shared := mapped(t, 1, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	var s unseenSpace
	if err := s.part(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	has := func(all []image.Range, at uint64) bool {
		return slices.ContainsFunc(all, func(r image.Range) bool { return r.Start <= at && at < r.End })
	}
	if !has(s.may, private) || has(s.shown, private) || has(s.may, shared) || !has(s.shown, shared) {
		t.Errorf("private %#x, shared %#x: not shown %x, shown %x", private, shared, s.may, s.shown)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		from, _, _ := strings.Cut(line, "-")
		start, err := strconv.ParseUint(from, 16, 64)
		if err != nil || strings.Contains(line, "[v") && has(s.may, start) {
			t.Errorf("of the kernel's own: %s, %v", line, err)
		}
	}
}

func TestAProcessThatHasLockedMemoryIsShownWhole(t *testing.T) {
	at := mapped(t, 1, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_LOCKED)
	var s unseenSpace
	if err := s.part(os.Getpid()); err != nil || len(s.may) > 0 {
		t.Errorf("%d mappings, with %#x locked, %v", len(s.may), at, err)
	}
}

// TestAProcessOfManyMappingsIsAskedAboutOnce: whatever lies in a process's memory, CRIU has its answer about all of it after the first
// mapping, and is told of the pages that it is shown. Each question costs tens of microseconds in the freeze.
func TestAProcessOfManyMappingsIsAskedAboutOnce(t *testing.T) {
	const many = 2000
	hidden := mapped(t, many, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	for i := uint64(0); i < many; i += 2 {
		if _, _, e := unix.Syscall(unix.SYS_MPROTECT, uintptr(hidden+i*image.PageSize), image.PageSize, unix.PROT_NONE); e != 0 {
			t.Fatal(e)
		}
	}
	file, want := ofFile(t, 8, 1, 3, 4)
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer pagemap.Close()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []uint64{mostRegions, 1} { // for regions in an answer
		a := asker{pagemap: pagemap, room: room, unseen: &unseen{tree: engine.Tree{Pid: os.Getpid()}, spaces: map[int]*unseenSpace{}}}
		for line := range strings.Lines(string(maps)) {
			var m image.Range
			if _, err := fmt.Sscanf(line, "%x-%x", &m.Start, &m.End); err != nil {
				t.Fatal(err)
			}
			if m.Start>>63 == 0 { // not vsyscall
				a.ask(t, m)
			}
		}
		if told := a.within(file); !slices.Equal(told, want) {
			t.Errorf("told of the pages %x of a file, want %x", told, want)
		}
		if told := a.within(image.Range{Start: hidden, End: hidden + many*image.PageSize}); len(told) > 0 {
			t.Errorf("told of %d pages that are not shown", len(told))
		}
		if most := 1 + len(a.found)/int(room); a.questions > most {
			t.Errorf("%d questions about %d mappings, want %d at most", a.questions, strings.Count(string(maps), "\n"), most)
		}
	}
}

// ofFile maps pages of a file that the process has written to some of: these are its own, and shown.
func ofFile(t *testing.T, pages int, own ...uint64) (all image.Range, written []uint64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, pages*image.PageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, pages*image.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	all.Start = uint64(uintptr(unsafe.Pointer(&b[0])))
	all.End = all.Start + uint64(len(b))
	for _, i := range own {
		b[i*image.PageSize] = 1
		written = append(written, all.Start+i*image.PageSize)
	}
	return all, written
}

// asker asks as CRIU does: mapping for mapping, if its last answer does not reach so far (pmc_get_map and should_dump_page in criu).
type asker struct {
	unseen    *unseen
	pagemap   *os.File
	room      uint64
	questions int
	reach     image.Range
	found     []scanRegion
}

func (a *asker) ask(t *testing.T, m image.Range) {
	t.Helper()
	for at := m.Start; at < m.End && (at < a.reach.Start || a.reach.End < m.End); at = a.reach.End {
		memory, err := os.CreateTemp(t.TempDir(), "criu")
		if err != nil {
			t.Fatal(err)
		}
		defer memory.Close()
		arg := question(at, m.End)
		arg.vec, arg.vecLen = 4096, a.room
		if _, err := memory.WriteAt(bytesOf(&arg, 1), 64); err != nil {
			t.Fatal(err)
		}
		n, ok := a.unseen.scanned(scanCall{memory, 64, a.pagemap})
		a.questions++
		found := make([]scanRegion, n+1)
		_, err = memory.ReadAt(bytesOf(&arg, 1), 64)
		if _, err2 := memory.ReadAt(bytesOf(&found[0], n), 4096); !ok || err != nil || n > 0 && err2 != nil || arg.walkEnd <= at {
			t.Fatalf("%#x-%#x: %d, %t, %v, %v, up to %#x", at, m.End, n, ok, err, err2, arg.walkEnd)
		}
		a.found = append(a.found, found[:n]...)
		a.reach = image.Range{Start: at, End: arg.walkEnd}
	}
}

// within are the pages of a range that it was told of.
func (a *asker) within(m image.Range) (pages []uint64) {
	for _, r := range a.found {
		for at := max(r.start, m.Start); at < min(r.end, m.End); at += image.PageSize {
			pages = append(pages, at)
		}
	}
	return pages
}

// question is CRIU's.
func question(start, end uint64) scanArg {
	return scanArg{size: uint64(unsafe.Sizeof(scanArg{})), start: start, end: end, inverted: pageIsZero | pageIsFile, mask: pageIsZero | pageIsFile,
		anyOf: pageIsPresent | pageIsSwapped, returned: pageIsPresent | pageIsSwapped}
}

func TestATreeWithAFilterIsShownWhole(t *testing.T) {
	begin, end := make(chan error), make(chan struct{})
	go func() {
		begin <- onDoomedThread([]func() error{func() error {
			l, err := listen()
			if err != nil {
				return err
			}
			begin <- nil
			<-end
			return l.Close()
		}})
	}()
	if err := <-begin; err != nil {
		t.Fatal(err)
	}
	if self := (engine.Tree{Pid: os.Getpid()}); !filtered(self.Pid) || newUnseen(self) != nil {
		t.Error("a thread with a filter was not seen")
	}
	close(end)
	if err := <-begin; err != nil {
		t.Fatal(err)
	}
}

// mapped maps pages until the test ends.
func mapped(t *testing.T, pages, flags int) uint64 {
	t.Helper()
	b, err := unix.Mmap(-1, 0, pages*image.PageSize, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return uint64(uintptr(unsafe.Pointer(&b[0])))
}

// TestAStandInAnswersWhatItIsFor: a process that asks for its own pages gets the stand-in's answer, and all else is the kernel's.
func TestAStandInAnswersWhatItIsFor(t *testing.T) {
	if err := mayStandIn(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		answers bool
		want    string
	}{{true, "12345"}, {false, "1"}} {
		s := standIn{answer: func(scanCall) (int, bool) { return 12345, c.answers }}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), scansEnv+"=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := onDoomedThread([]func() error{s.prepare, cmd.Start}); err != nil {
			t.Fatal(err)
		}
		s.serve(cmd.Process.Pid)
		said, _ := bufio.NewReader(out).ReadString('\n')
		if err := errors.Join(cmd.Wait(), s.Close(), s.Close()); err != nil || strings.TrimSpace(said) != c.want {
			t.Errorf("got %q, want %q; %v", said, c.want, err)
		}
	}
}

// TestAKernelWithoutScansHasNoStandIn: CRIU reads the pagemaps there, so that nothing would be hidden from a dump that is no lazy one for CRIU, and
// all memory would be in its images.
func TestAKernelWithoutScansHasNoStandIn(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), standsInEnv+"=1")
	var said strings.Builder
	cmd.Stdout = &said
	if err := onDoomedThread([]func() error{refuseScans, cmd.Start}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), unix.ENOTTY.Error()) {
		t.Errorf("it says of a stand-in: %s, %v", said.String(), err)
	}
}

// refuseScans has the calling thread, and what is started from it, told that there is no PAGEMAP_SCAN.
func refuseScans() error {
	filter := scanFilter()
	filter[len(filter)-2].K = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOTTY)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return e
	}
	return nil
}

const (
	scansEnv    = "DROVER_TEST_SCANS"
	standsInEnv = "DROVER_TEST_STANDS_IN"
)

// A process that asks for its own pages does so on its first thread, as CRIU does, whose only one it is.
func init() {
	switch {
	case os.Getenv(scansEnv) != "":
		scanOwnPages()
	case os.Getenv(standsInEnv) != "":
		fmt.Println(mayStandIn())
	default:
		return
	}
	os.Exit(0)
}

// scanOwnPages says what PAGEMAP_SCAN returns for one page that is there.
func scanOwnPages() {
	f, err := os.Open("/proc/self/pagemap")
	page := make([]byte, 2*image.PageSize)
	page[0], page[len(page)-1] = 1, 1
	at := uint64(uintptr(unsafe.Pointer(&page[image.PageSize-1]))) / image.PageSize * image.PageSize
	var found [4]scanRegion
	arg := question(at, at+image.PageSize)
	arg.vec, arg.vecLen = uint64(uintptr(unsafe.Pointer(&found))), 4
	n, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), pagemapScan, uintptr(unsafe.Pointer(&arg)))
	if err != nil || e != 0 {
		fmt.Println(err, e)
		return
	}
	fmt.Println(n)
}
