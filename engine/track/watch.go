package track

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"drover/engine/image"
	"drover/engine/internal/proc"
	"drover/engine/track/inject"
)

// What scans ask for. Pages of files and the kernel's zero page are not the program's; without `some` the kernel would also fill
// the page tables of mappings that are mostly holes.
var (
	own     = query{none: pageIsFile | pageIsZero, some: pageIsPresent | pageIsSwapped, told: pageIsWatched | pageIsWritten}
	written = query{flags: scanProtect | scanOnlyWatched, all: pageIsWritten, none: own.none, some: own.some, told: pageIsWritten}
	every   = query{flags: scanProtect | scanOnlyWatched, none: own.none, some: own.some, told: pageIsWritten}
)

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
}

// attach begins to watch a process; nothing is registered yet. contains says whether it is still one of the tree.
func attach(ctx context.Context, pid int, contains func(pid int) bool) (*watch, error) {
	w := &watch{space: image.Space{Kind: image.Process, ID: uint64(proc.InnerPid(pid))}, pidfd: -1, uffd: inject.Uffd{FD: -1}, owed: map[uint64]bool{}}
	err := w.open(ctx, pid, contains)
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watch) open(ctx context.Context, pid int, contains func(pid int) bool) (err error) {
	if w.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		return fmt.Errorf("open pid %d: %w", pid, err)
	}
	if !contains(pid) {
		return fmt.Errorf("pid %d: %w", pid, unix.ESRCH) // and its number may be somebody else's by now
	}
	if w.uffd, err = inject.Userfaultfd(ctx, pid, w.pidfd); err != nil {
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
// protected first and read then, so that a write in between is found next time.
func (w *watch) look(ctx context.Context, maps []mapping, r *reader, st *RoundStats) error {
	if len(maps) == 0 {
		return unix.ESRCH // it has ended and only its parent has not heard of it
	}
	owed := w.owed
	w.owed = map[uint64]bool{}
	r.begin(w.process, w.space, &st.Emitted)
	r.lost = func(addr uint64) {
		if w.process.has(addr) { // else it was unmapped; what comes there instead has been written
			w.owed[addr] = true
		}
	}
	for addr := range owed {
		if err := r.add(addr, addr+image.PageSize); err != nil {
			return err
		}
	}
	for i, m := range maps {
		if !m.private() || m.kernels() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.protect(m, stretch(maps, i), func(at region) error { return r.add(at.start, at.end) }); err != nil {
			return err
		}
	}
	st.Scanned += w.process.pages()
	return r.flush()
}

// stretch is all room around a mapping up to the next one that is not to be registered. The kernel splits a mapping where a range
// that is registered ends in the middle of it, and a program notices that (mremap fails), so no range may end where the program is
// just changing something.
func stretch(maps []mapping, i int) span {
	lowest := uint64(os.Getpagesize() * 16) // vm.mmap_min_addr
	s := span{lowest, maps[len(maps)-1].end}
	for _, m := range maps[:i] {
		if !m.private() || m.kernels() {
			s.start = m.end
		}
	}
	for _, m := range maps[i:] {
		if !m.private() || m.kernels() {
			s.end = m.start
			break
		}
	}
	return s
}

// protect hands to f the ranges of a mapping that were written since they were protected, and protects them. A mapping, or what took
// its place, that is not registered is new, and all of it counts as written.
func (w *watch) protect(m mapping, around span, f func(region) error) error {
	q := written
	for at, tries := m.start, 0; at < m.end; {
		found, to, err := w.process.next(at, m.end, q)
		switch {
		case errors.Is(err, unix.EPERM) && tries < 3 && w.register(at, m.end, around):
			tries, q = tries+1, every
			continue
		case errors.Is(err, unix.EPERM) && q != own: // it changes all the time, is gone, or cannot be watched: taken whole, each time
			q = own
			continue
		case errors.Is(err, unix.ESRCH):
			return errOtherMemory
		case err != nil:
			return fmt.Errorf("scan %x-%x: %w", at, m.end, err)
		}
		for _, r := range found {
			if err := f(r); err != nil {
				return err
			}
		}
		at = to
	}
	return nil
}

// register has the kernel watch what lies around, or only the range if something in there cannot be watched.
func (w *watch) register(start, end uint64, around span) bool {
	return register(w.uffd.FD, around.start, around.end) == nil || register(w.uffd.FD, start, end) == nil
}

// clean returns the ranges, by rising address, of which it is certain that the last that look has handed over is what they hold, and
// how many pages are in none of them. The process stands still. Only mappings count that nothing but the program writes to.
func (w *watch) clean() (known []span, changed uint64, err error) {
	maps, err := w.process.maps()
	if err != nil {
		return nil, 0, err
	}
	for _, m := range maps {
		if !m.private() || m.kernels() {
			continue
		}
		err := w.process.scan(m.start, m.end, own, func(at region) error {
			if !m.anonymous() || at.categories&pageIsWatched == 0 || at.categories&pageIsWritten != 0 {
				changed += (at.end - at.start) / image.PageSize
				return nil
			}
			known = append(known, w.without(at)...)
			return nil
		})
		if errors.Is(err, unix.ESRCH) {
			return nil, 0, errOtherMemory
		}
		if err != nil {
			return nil, 0, fmt.Errorf("scan %x-%x: %w", m.start, m.end, err)
		}
	}
	return known, changed + uint64(len(w.owed)), nil
}

// without is a range less the pages that are owed.
func (w *watch) without(r region) (rest []span) {
	start := r.start
	for a := start; len(w.owed) > 0 && a < r.end; a += image.PageSize {
		if w.owed[a] {
			rest = append(rest, span{start, a})
			start = a + image.PageSize
		}
	}
	return append(rest, span{start, r.end})
}
