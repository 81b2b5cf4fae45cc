package track

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine/image"
)

// include/uapi/linux/fs.h: PAGEMAP_SCAN (Linux 6.7) and its categories of pages.
const (
	pagemapScan     = 0xc0606610
	pageIsWatched   = 1 << 0 // PAGE_IS_WPALLOWED: its mapping is registered for asynchronous write protection
	pageIsWritten   = 1 << 1
	pageIsFile      = 1 << 2
	pageIsPresent   = 1 << 3
	pageIsSwapped   = 1 << 4
	pageIsZero      = 1 << 5 // the kernel's page of zeroes: a program that reads it has none of its own
	scanProtect     = 1 << 0 // PM_SCAN_WP_MATCHING: protects what it reports, in one step
	scanOnlyWatched = 1 << 1 // PM_SCAN_CHECK_WPASYNC: fails with EPERM where a mapping is not registered
	scanArgSize     = 96
	regionsPerScan  = 4096
)

// /proc/PID/pagemap, 8 bytes a page (Documentation/admin-guide/mm/pagemap.rst)
const (
	entriesPerWalk  = 1 << 16
	pagemapPresent  = 1 << 63
	pagemapSwapped  = 1 << 62
	pagemapFileMask = 1 << 61 // file-backed or shared anonymous
)

type region struct{ start, end, categories uint64 }

type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages, inverted, mask, anyOf, returned uint64
}

// query says which pages a scan reports.
type query struct {
	flags uint64
	all   uint64 // categories that a page must have
	none  uint64 // categories that it must not have
	some  uint64 // categories of which it must have one; without any the kernel also looks at, and protects, pages that do not exist
	told  uint64 // categories that are reported
}

// next is one call of PAGEMAP_SCAN: ranges between start and end that match, by rising address, valid until the next call, and how
// far it came. It skips holes without looking at each page. If it fails, it may have protected pages that it does not report.
func (p *process) next(start, end uint64, q query) (found []region, to uint64, err error) {
	if p.regions == nil {
		p.regions = make([]region, regionsPerScan)
	}
	arg := scanArg{size: scanArgSize, flags: q.flags, start: start, end: end, mask: q.all | q.none, inverted: q.none, anyOf: q.some, returned: q.told,
		vec: uint64(uintptr(unsafe.Pointer(&p.regions[0]))), vecLen: regionsPerScan}
	n, _, e := unix.Syscall(unix.SYS_IOCTL, p.pagemap.Fd(), pagemapScan, uintptr(unsafe.Pointer(&arg)))
	switch {
	case e != 0:
		return nil, start, e
	case arg.walkEnd <= start:
		return nil, start, fmt.Errorf("scan of pid %d does not get beyond %#x", p.pid, start)
	}
	return p.regions[:n], arg.walkEnd, nil
}

// scan calls f with all ranges between start and end that match, and stops at its first error.
func (p *process) scan(start, end uint64, q query, f func(region) error) error {
	for start < end {
		found, to, err := p.next(start, end, q)
		if err != nil {
			return err
		}
		for _, r := range found {
			if err := f(r); err != nil {
				return err
			}
		}
		start = to
	}
	return nil
}

// populated calls f with every range of the mapping that has pages of the program's own.
func (p *process) populated(m mapping, f func(start, end uint64) error) error {
	if !p.noScan {
		q := query{some: pageIsPresent | pageIsSwapped}
		if m.private() {
			q.none = pageIsFile
		}
		err := p.scan(m.start, m.end, q, func(r region) error { return f(r.start, r.end) })
		if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		p.noScan = true
	}
	return p.walk(m, f)
}

// walk is populated without PAGEMAP_SCAN.
func (p *process) walk(m mapping, f func(start, end uint64) error) error {
	if p.entries == nil {
		p.entries = make([]byte, entriesPerWalk*8)
	}
	var from, to uint64 // the range being gathered
	for at := m.start; at < m.end; {
		n, err := p.pagemap.ReadAt(p.entries[:min(entriesPerWalk, (m.end-at)/image.PageSize)*8], int64(at/image.PageSize*8))
		if n < 8 {
			if errors.Is(err, io.EOF) {
				break
			}
			return err
		}
		for i := 0; i+8 <= n; i += 8 {
			e := binary.LittleEndian.Uint64(p.entries[i:])
			if e&(pagemapPresent|pagemapSwapped) != 0 && (!m.private() || e&pagemapFileMask == 0) {
				if to != at {
					if from < to {
						if err := f(from, to); err != nil {
							return err
						}
					}
					from = at
				}
				to = at + image.PageSize
			}
			at += image.PageSize
		}
	}
	if from < to {
		return f(from, to)
	}
	return nil
}

// has says whether the process has a page at addr.
func (p *process) has(addr uint64) bool {
	var e [8]byte
	if _, err := p.pagemap.ReadAt(e[:], int64(addr/image.PageSize*8)); err != nil {
		return false
	}
	return binary.LittleEndian.Uint64(e[:])&(pagemapPresent|pagemapSwapped) != 0
}
