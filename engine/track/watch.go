package track

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/engine/image"
	"drover/engine/internal/proc"
	"drover/engine/track/inject"
)

// What scans ask for. The kernel's zero page is not the program's; without `some` the kernel would also fill the page tables of
// mappings that are mostly holes.
var (
	own     = query{none: pageIsZero, some: pageIsPresent | pageIsSwapped, told: pageIsWritten}
	written = query{flags: scanProtect | scanOnlyWatched, all: pageIsWritten, none: own.none, some: own.some, told: pageIsWritten}
	every   = query{flags: scanProtect | scanOnlyWatched, none: own.none, some: own.some, told: pageIsWritten}
	whether = query{flags: scanOnlyWatched, some: own.some, told: pageIsWritten}
	quiet   = query{all: pageIsWatched, none: pageIsWritten | own.none, some: own.some, told: pageIsWatched}
)

// of is the question put to a mapping. Pages of a file are not the program's, but to tell them the kernel looks at the descriptor
// of every page, which takes more than twice as long as the rest: so it is asked for only where a file is mapped.
func (q query) of(m mapping) query {
	if !m.anonymous() {
		q.none |= pageIsFile
	}
	return q
}

// errOtherMemory means that a process runs another program than when it was watched: it has called execve(2).
var errOtherMemory = errors.New("it has memory of its own no more: it runs another program now")

// watch is the memory of one process under asynchronous write protection: the kernel notes the first write to a page after each
// look, at some 0.6 µs for the program. All descriptors are of the memory that it had when it was attached.
type watch struct {
	process *process
	space   image.Space
	pidfd   int
	uffd    inject.Uffd
	owed    map[uint64]bool // pages that are protected and could not be handed over
	// recent are the ranges that the last look handed over, by rising address. Whoever holds a page while it is protected (a device
	// that reads a file into it, process_vm_writev) may still write to it unnoticed, so each is handed over once more.
	recent []span
}

// attach begins to watch a process; nothing is registered yet. contains says whether it is still one of the tree.
func attach(ctx context.Context, i *inject.Injector, pid int, contains func(pid int) bool) (*watch, error) {
	w := &watch{space: image.Space{Kind: image.Process, ID: uint64(proc.InnerPid(pid))}, pidfd: -1, uffd: inject.Uffd{FD: -1}, owed: map[uint64]bool{}}
	err := w.open(ctx, i, pid, contains)
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watch) open(ctx context.Context, i *inject.Injector, pid int, contains func(pid int) bool) (err error) {
	if w.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		return fmt.Errorf("open pid %d: %w", pid, err)
	}
	if !contains(pid) {
		return fmt.Errorf("pid %d: %w", pid, unix.ESRCH) // and its number may be somebody else's by now
	}
	if w.uffd, err = i.Userfaultfd(ctx, pid, w.pidfd); err != nil {
		return err
	}
	if err := enable(w.uffd.FD); err != nil {
		return fmt.Errorf("enable asynchronous write protection: %w", err)
	}
	// an execve between the two makes register fail at once, because the memory that the userfaultfd is of is gone
	if w.process, err = openProcess(pid); err != nil {
		return err
	}
	return nil
}

func (w *watch) close() {
	for _, fd := range []int{w.uffd.FD, w.pidfd} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if w.process != nil {
		w.process.close()
	}
}

// look hands to r what may have changed since the last look, and has the kernel note what changes from now on. A page is
// protected first and read then, so that a write in between is found next time. No page is handed over twice: one that was handed over
// last time and has been written to since counts as written to.
func (w *watch) look(ctx context.Context, maps []mapping, r *reader, st *RoundStats) error {
	if len(maps) == 0 {
		return unix.ESRCH // it has ended and only its parent has not heard of it
	}
	owed, recent := w.owed, w.recent
	w.owed, w.recent = map[uint64]bool{}, nil
	r.begin(w.process, w.space, &st.Emitted)
	r.lost = func(addr uint64) {
		if w.process.has(addr) { // else it was unmapped; what comes there instead has been written
			w.owed[addr] = true
		}
	}
	for group := range eachStretch(maps) {
		asked := w.register(group)
		for i, m := range group.maps {
			if err := ctx.Err(); err != nil {
				return err
			}
			found, err := w.protect(m, asked[i])
			if err != nil {
				return err
			}
			w.recent = append(w.recent, found...)
			if err := r.addAll(found); err != nil {
				return err
			}
		}
	}
	var left []span // pages that could not be read last time
	for addr := range owed {
		left = append(left, span{addr, addr + image.PageSize})
	}
	left = less(rising(left), w.recent)
	if err := r.addAll(left); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	r.emitted = &st.Again
	if err := r.addAll(less(less(recent, w.recent), left)); err != nil {
		return err
	}
	if direct(w.process.pid) {
		return errDirect
	}
	st.Scanned += w.process.pages()
	return r.flush()
}

// errDirect means that a device may write into a process's memory for as long as it likes after the page was protected.
var errDirect = errors.New("it has a file open for direct I/O (O_DIRECT): what a device writes into its memory is not noted")

// direct says whether a process has a file open past the page cache.
func direct(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, _ := os.ReadDir(dir)
	for _, fd := range fds {
		if to, _ := os.Readlink(dir + "/" + fd.Name()); !strings.HasPrefix(to, "/") {
			continue
		}
		info, _ := os.ReadFile(dir + "info/" + fd.Name())
		_, rest, _ := strings.Cut(string(info), "flags:\t")
		flags, _, _ := strings.Cut(rest, "\n")
		if n, _ := strconv.ParseUint(flags, 8, 64); n&unix.O_DIRECT != 0 {
			return true
		}
	}
	return false
}

// stretch is neighbouring private mappings and all room around them up to the next mapping that is not to be registered. The kernel splits a
// mapping where a range that is registered ends in the middle of it, and a program notices that (mremap fails), so no range may end
// where the program is just changing something.
type stretch struct {
	span
	maps []mapping
}

func eachStretch(maps []mapping) iter.Seq[stretch] {
	return func(yield func(stretch) bool) {
		from := uint64(16 * image.PageSize) // vm.mmap_min_addr
		for i := 0; i < len(maps); i++ {
			first := i
			for i < len(maps) && maps[i].private() && !maps[i].kernels() {
				i++
			}
			s := stretch{span{from, 0}, maps[first:i]}
			if i < len(maps) {
				s.end, from = maps[i].start, maps[i].end
			} else {
				s.end = maps[i-1].end
			}
			if len(s.maps) > 0 && !yield(s) {
				return
			}
		}
	}
}

// register has the kernel watch all mappings of a stretch, and says how each is to be asked about: for what was written, for
// everything where it is new (its page tables may say anything), and without protecting where it cannot be watched, or another does so.
func (w *watch) register(group stretch) []query {
	asked := make([]query, len(group.maps))
	for i, m := range group.maps {
		asked[i] = written.of(m)
		if _, _, err := w.process.next(m.start, m.start+image.PageSize, whether); errors.Is(err, unix.EPERM) {
			asked[i] = every.of(m)
		}
	}
	if register(w.uffd.FD, group.start, group.end) == nil {
		return asked
	}
	for i, m := range group.maps {
		if register(w.uffd.FD, m.start, m.end) != nil {
			asked[i] = own.of(m)
		}
	}
	return asked
}

// protect returns the ranges of a mapping that match, and protects them.
func (w *watch) protect(m mapping, q query) (all []span, err error) {
	for at := m.start; at < m.end; {
		found, to, err := w.process.next(at, m.end, q)
		switch {
		case errors.Is(err, unix.EPERM) && q.flags != 0: // something new has come there: it is taken whole, and watched from the next look on
			q = own
			q.none |= pageIsFile
			continue
		case errors.Is(err, unix.ESRCH):
			return nil, errOtherMemory
		case err != nil:
			return nil, fmt.Errorf("scan %x-%x: %w", at, m.end, err)
		}
		for _, r := range found {
			all = append(all, span{r.start, r.end})
		}
		at = to
	}
	return rising(all), nil
}
