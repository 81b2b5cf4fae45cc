package criu

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
)

func TestScansArePartedAtTheEdgesOfWhatIsNotShown(t *testing.T) {
	s := unseenSpace{may: []image.Range{{Start: 10, End: 20}, {Start: 20, End: 24}, {Start: 40, End: 50}}}
	shown := s.shown([]scanRegion{
		{5, 12, pageIsPresent}, {19, 21, pageIsSwapped}, {23, 30, pageIsPresent}, {35, 55, pageIsPresent},
		{41, 43, pageIsSwapped | pageIsGuard}, // which is no page
		{60, 61, pageIsPresent},
	})
	if want := []scanRegion{
		{5, 10, pageIsPresent}, {24, 30, pageIsPresent}, {35, 40, pageIsPresent}, {50, 55, pageIsPresent},
		{41, 43, pageIsSwapped | pageIsGuard}, {60, 61, pageIsPresent},
	}; !slices.Equal(shown, want) {
		t.Errorf("shown: %v", shown)
	}
	for _, c := range []struct {
		start, end uint64
		hidden     bool
	}{{10, 20, true}, {12, 13, true}, {20, 24, true}, {9, 12, false}, {23, 25, false}, {30, 31, false}, {50, 51, false}} {
		if s.hides(c.start, c.end) != c.hidden {
			t.Errorf("%d to %d: hidden is %t", c.start, c.end, !c.hidden)
		}
	}
}

func TestPrivateMemoryOfAProcessIsFoundInItsMaps(t *testing.T) {
	private := mapped(t, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	shared := mapped(t, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	all, err := anonymous(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	has := func(at uint64) bool {
		return slices.ContainsFunc(all, func(r image.Range) bool { return r.Start <= at && at < r.End })
	}
	if !has(private) || has(shared) {
		t.Errorf("private %t, shared %t", has(private), has(shared))
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		from, _, _ := strings.Cut(line, "-")
		start, err := strconv.ParseUint(from, 16, 64)
		if err != nil || strings.Contains(line, "[v") && has(start) {
			t.Errorf("of the kernel's own: %s, %v", line, err)
		}
	}
}

func TestAProcessThatHasLockedMemoryIsShownWhole(t *testing.T) {
	at := mapped(t, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_LOCKED)
	if all, err := anonymous(os.Getpid()); err != nil || len(all) > 0 {
		t.Errorf("%d mappings, with %#x locked, %v", len(all), at, err)
	}
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

// mapped maps a page until the test ends.
func mapped(t *testing.T, flags int) uint64 {
	t.Helper()
	b, err := unix.Mmap(-1, 0, image.PageSize, unix.PROT_READ|unix.PROT_WRITE, flags)
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

const scansEnv = "DROVER_TEST_SCANS"

// A process that asks for its own pages does so on its first thread, as CRIU does, whose only one it is.
func init() {
	if os.Getenv(scansEnv) != "" {
		scanOwnPages()
		os.Exit(0)
	}
}

// scanOwnPages says what PAGEMAP_SCAN returns for one page that is there.
func scanOwnPages() {
	f, err := os.Open("/proc/self/pagemap")
	page := make([]byte, 2*image.PageSize)
	page[0], page[len(page)-1] = 1, 1
	at := uint64(uintptr(unsafe.Pointer(&page[image.PageSize-1]))) / image.PageSize * image.PageSize
	var found [4]scanRegion
	arg := scanArg{start: at, end: at + image.PageSize, vec: uint64(uintptr(unsafe.Pointer(&found))), vecLen: 4,
		inverted: pageIsZero | pageIsFile, mask: pageIsZero | pageIsFile, anyOf: pageIsPresent | pageIsSwapped, returned: pageIsPresent | pageIsSwapped}
	arg.size = uint64(unsafe.Sizeof(arg))
	n, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), pagemapScan, uintptr(unsafe.Pointer(&arg)))
	if err != nil || e != 0 {
		fmt.Println(err, e)
		return
	}
	fmt.Println(n)
}
