package criu

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/internal/proc"
	"drover/internal/errs"
)

// unseen is the memory that CRIU is not shown in a lazy dump. Shown it, CRIU maps every page into pipes for a page server that nobody
// asks (criu/page-pipe.c): 60 to 120 ms a GiB in the freeze, and two descriptors for every few MiB. So its question for the pages of a
// process is answered as if its private anonymous mappings had none. drover looks for them meanwhile, and puts them into the pagemaps
// when CRIU has written those. The images are then those of a lazy dump that has seen all.
type unseen struct {
	standIn
	tree engine.Tree

	mu     sync.Mutex
	spaces map[int]*unseenSpace // by pid on this host
}

// unseenSpace is one process's.
type unseenSpace struct {
	inner uint64        // its pid in the tree's own namespace
	may   []image.Range // private anonymous memory, which is not shown; rises
	shown []image.Range // all other; rises
	end   uint64        // of the last mapping

	looked chan struct{} // closed when pages and err are known
	pages  []image.Range
	err    error
}

// Layouts of include/uapi/linux/fs.h.
type (
	scanRegion struct{ start, end, categories uint64 }
	scanArg    struct {
		size, flags, start, end, walkEnd, vec, vecLen, maxPages, inverted, mask, anyOf, returned uint64
	}
)

const (
	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsZero    = 1 << 5
	pageIsGuard   = 1 << 8

	mostRegions    = 1 << 15 // CRIU's PAGE_REGIONS_MAX_NR
	regionsPerLook = 1 << 12
)

// newUnseen is nil where CRIU must be shown all: the kernel cannot, or the tree has seccomp filters, which the kernel lets nobody read or
// suspend who has one (seccomp_get_filter and check_ptrace_options in Linux).
func newUnseen(t engine.Tree) *unseen {
	if mayStandIn() != nil || slices.ContainsFunc(proc.OfTree(t), filtered) {
		return nil
	}
	u := &unseen{tree: t, spaces: map[int]*unseenSpace{}}
	u.answer = u.scanned
	return u
}

// scanned answers a scan as the kernel would, without the pages that are not shown, and goes on to the end of the process's memory: CRIU
// notes how far an answer reaches (pmc_fill in criu/pagemap-cache.c), and need not ask again for each mapping that follows.
func (u *unseen) scanned(c scanCall) (int, bool) {
	var arg scanArg
	if _, err := c.memory.ReadAt(bytesOf(&arg, 1), c.argument); err != nil || !arg.forDump() {
		return 0, false
	}
	s, err := u.space(c.pagemap, arg.returned)
	if err != nil || len(s.may) == 0 || arg.end > s.end {
		return 0, false
	}
	found, to, err := s.scan(c.pagemap, arg)
	if err != nil {
		return 0, false
	}
	arg.walkEnd = to
	if len(found) > 0 {
		if _, err := c.memory.WriteAt(bytesOf(&found[0], len(found)), int64(arg.vec)); err != nil {
			return 0, false
		}
	}
	_, err = c.memory.WriteAt(bytesOf(&arg, 1), c.argument)
	return len(found), err == nil
}

// scan asks the kernel about what is shown from where a question begins on, and says how far its answer reaches.
func (s *unseenSpace) scan(pagemap *os.File, asked scanArg) (found []scanRegion, to uint64, err error) {
	found = make([]scanRegion, 0, asked.vecLen)
	for _, m := range s.shown {
		asked.end = m.End
		for asked.start = max(asked.start, m.Start); asked.start < asked.end; asked.start = asked.walkEnd {
			if len(found) == cap(found) {
				return found, asked.start, nil
			}
			more, err := scan(pagemap, &asked, found[len(found):cap(found)])
			if err != nil {
				return nil, 0, err
			}
			if asked.walkEnd <= asked.start {
				return nil, 0, fmt.Errorf("a scan of %#x-%#x does not get on", asked.start, asked.end)
			}
			found = found[:len(found)+len(more)]
		}
	}
	return found, s.end, nil
}

// scan asks the kernel.
func scan(pagemap *os.File, arg *scanArg, into []scanRegion) ([]scanRegion, error) {
	arg.vec, arg.vecLen = uint64(uintptr(unsafe.Pointer(&into[0]))), uint64(len(into))
	n, _, e := unix.Syscall(unix.SYS_IOCTL, pagemap.Fd(), pagemapScan, uintptr(unsafe.Pointer(arg)))
	runtime.KeepAlive(into)
	if e != 0 {
		return nil, e
	}
	return into[:n], nil
}

// mayScan is nil if the kernel knows PAGEMAP_SCAN (Linux 6.7).
func mayScan() error {
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return err
	}
	defer pagemap.Close()
	arg := scanArg{size: uint64(unsafe.Sizeof(scanArg{})), end: image.PageSize, mask: pageIsPresent, returned: pageIsPresent}
	if _, err := scan(pagemap, &arg, make([]scanRegion, 1)); err != nil {
		return fmt.Errorf("ask which pages a process has (PAGEMAP_SCAN): %w", err)
	}
	return nil
}

// forDump says whether CRIU asks which pages it should dump (pmc_fill in criu/pagemap-cache.c). It also asks where guards are.
func (a scanArg) forDump() bool {
	return a.size == uint64(unsafe.Sizeof(a)) && a.inverted == pageIsZero|pageIsFile && a.mask == a.inverted &&
		a.anyOf == pageIsPresent|pageIsSwapped && a.vecLen > 0 && a.vecLen <= mostRegions
}

// space is that of the process whose pagemap is open. Its pages are looked for from the first time on; told are the categories that CRIU
// asks to be told, which the kernel knows.
func (u *unseen) space(pagemap *os.File, told uint64) (*unseenSpace, error) {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", pagemap.Fd()))
	if err != nil {
		return nil, err
	}
	name, ok := strings.CutPrefix(strings.TrimSuffix(link, "/pagemap"), "/proc/")
	pid, err := strconv.Atoi(name)
	if !ok || err != nil {
		return nil, fmt.Errorf("%s is no process's", link)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.spaces[pid]; s != nil {
		return s, nil
	}
	if !slices.Contains(proc.OfTree(u.tree), pid) {
		return nil, fmt.Errorf("pid %d: %w", pid, engine.ErrGone)
	}
	s := &unseenSpace{inner: uint64(proc.InnerPid(pid)), looked: make(chan struct{})}
	if err := s.part(pid); err != nil {
		return nil, err
	}
	own, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid)) // CRIU's own may be closed meanwhile
	if err != nil {
		return nil, err
	}
	u.spaces[pid] = s
	go func() {
		defer close(s.looked)
		defer own.Close()
		s.err = s.look(own, told)
	}()
	return s, nil
}

// look finds the pages that are not shown: those that CRIU would ask for, in all mappings that are not.
func (s *unseenSpace) look(pagemap *os.File, told uint64) error {
	found := make([]scanRegion, regionsPerLook)
	for _, m := range s.may {
		for m.Start < m.End {
			arg := scanArg{size: uint64(unsafe.Sizeof(scanArg{})), start: m.Start, end: m.End, inverted: pageIsZero | pageIsFile,
				mask: pageIsZero | pageIsFile, anyOf: pageIsPresent | pageIsSwapped, returned: told}
			regions, err := scan(pagemap, &arg, found)
			switch {
			case err != nil:
				return fmt.Errorf("scan %#x-%#x: %w", m.Start, m.End, err)
			case arg.walkEnd <= m.Start:
				return fmt.Errorf("a scan of %#x-%#x does not get on", m.Start, m.End)
			}
			for _, r := range regions {
				if r.categories&pageIsGuard == 0 {
					s.pages = append(s.pages, image.Range{Start: r.start, End: r.end})
				}
			}
			m.Start = arg.walkEnd
		}
	}
	return nil
}

// part parts the memory of a process into what a lazy dump leaves out (vma_entry_can_be_lazy in criu/include/vma.h) and what is shown.
// Which mappings are locked is in no file that is cheap to read: a process that has locked any is shown whole.
func (s *unseenSpace) part(pid int) error {
	if hasLocked(pid) {
		return nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() { // address perms offset device inode name
		line := strings.Fields(lines.Text())
		if len(line) < 5 || len(line) > 5 && line[5] == "[vsyscall]" { // which is where no address of a program may be
			continue
		}
		from, to, _ := strings.Cut(line[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		into := &s.may
		if !strings.HasSuffix(line[1], "p") || line[4] != "0" || len(line) > 5 && isKernels(line[5]) {
			into = &s.shown
		}
		if n := len(*into); n > 0 && (*into)[n-1].End == start {
			(*into)[n-1].End = end // whatever divides them
		} else {
			*into = append(*into, image.Range{Start: start, End: end})
		}
		s.end = end
	}
	return lines.Err()
}

// hasLocked says whether a process has locked memory, or may have.
func hasLocked(pid int) bool {
	kib, err := statusNumber(pid, "VmLck")
	return err != nil || kib > 0
}

// isKernels says whether a mapping of that name is the kernel's own.
func isKernels(name string) bool { return strings.HasPrefix(name, "[v") || name == "[uprobes]" }

// filtered says whether a thread of a process has a seccomp filter.
func filtered(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	return slices.ContainsFunc(threads, func(path string) bool {
		b, _ := os.ReadFile(path) // a thread that has ended has none
		return bytes.Contains(b, []byte("\nSeccomp:")) && !bytes.Contains(b, []byte("\nSeccomp:\t0\n"))
	})
}

// statusNumber is a number of KiB in a process's status, 0 if it is not there.
func statusNumber(pid int, name string) (kib uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); key == name {
			return strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		}
	}
	return 0, nil
}

// describe puts what was not shown into the pagemaps of a finished dump, whose images are in dir.
func (u *unseen) describe(dir string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for pid, s := range u.spaces {
		<-s.looked
		if err := errors.Join(s.err, image.AddLazy(dir, s.inner, s.pages)); err != nil {
			return errs.New(errs.Failed, "note which pages of pid %d were left out: %w", pid, err)
		}
	}
	return nil
}

// bytesOf are the bytes of n values from v on.
func bytesOf[T any](v *T, n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), n*int(unsafe.Sizeof(*v)))
}
