package track

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine/image"
)

// process is another process's memory, open for reading.
type process struct {
	pid     int
	mem     *os.File
	pagemap *os.File
	regions []region // scratch of scan
	entries []byte   // scratch of walk
	noScan  bool     // the kernel has no PAGEMAP_SCAN
}

func openProcess(pid int) (*process, error) {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		mem.Close()
		return nil, err
	}
	return &process{pid: pid, mem: mem, pagemap: pagemap}, nil
}

func (p *process) close() {
	p.mem.Close()
	p.pagemap.Close()
}

// mapping is a line of /proc/PID/maps.
type mapping struct {
	start, end uint64
	perm, name string
	inode      uint64
}

func (p *process) maps() ([]mapping, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", p.pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var ms []mapping
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var m mapping
		fields := strings.Fields(sc.Text())
		if len(fields) < 5 {
			continue
		}
		lo, hi, _ := strings.Cut(fields[0], "-")
		m.start, _ = strconv.ParseUint(lo, 16, 64)
		m.end, _ = strconv.ParseUint(hi, 16, 64)
		m.perm = fields[1]
		m.inode, _ = strconv.ParseUint(fields[4], 10, 64)
		if len(fields) > 5 {
			m.name = fields[5]
		}
		ms = append(ms, m)
	}
	return ms, sc.Err()
}

func (m mapping) shared() bool { return strings.HasSuffix(m.perm, "s") }

// file says whether the pages may be those of a file on a file system, which is not copied.
func (m mapping) file() bool {
	return m.inode != 0 && !strings.HasPrefix(m.name, "/dev/zero") && !strings.HasPrefix(m.name, "/memfd:") && !strings.HasPrefix(m.name, "/SYSV")
}

// dumped says whether a dump has pages of the mapping: all but the kernel's own and shared files.
func (m mapping) dumped() bool {
	if strings.HasPrefix(m.name, "[v") { // vdso, vvar, vsyscall: some pages at most, left to the final dump
		return false
	}
	return !(m.shared() && m.file())
}

// include/uapi/linux/fs.h
const (
	pagemapScan     = 0xc0606610
	pageIsFile      = 1 << 2
	pageIsPresent   = 1 << 3
	pageIsSwapped   = 1 << 4
	scanArgSize     = 96
	regionsPerScan  = 4096
	entriesPerWalk  = 1 << 16
	pagemapPresent  = 1 << 63
	pagemapSwapped  = 1 << 62
	pagemapFileMask = 1 << 61 // file-backed or shared anonymous
)

type region struct{ start, end, categories uint64 }

type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages, inverted, mask, anyOf, returned uint64
}

// populated calls f with every range of the mapping that has pages which a dump would write.
func (p *process) populated(m mapping, f func(start, end uint64) error) error {
	wantFile := !m.file() // shared anonymous pages count as file pages
	if !p.noScan {
		err := p.scan(m, wantFile, f)
		if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		p.noScan = true
	}
	return p.walk(m, wantFile, f)
}

// scan asks the kernel for populated ranges (PAGEMAP_SCAN, Linux 6.7); it skips holes without looking at each page.
func (p *process) scan(m mapping, wantFile bool, f func(start, end uint64) error) error {
	if p.regions == nil {
		p.regions = make([]region, regionsPerScan)
	}
	for at := m.start; at < m.end; {
		arg := scanArg{size: scanArgSize, start: at, end: m.end, anyOf: pageIsPresent | pageIsSwapped, returned: pageIsPresent | pageIsSwapped | pageIsFile,
			vec: uint64(uintptr(unsafe.Pointer(&p.regions[0]))), vecLen: regionsPerScan}
		n, _, e := unix.Syscall(unix.SYS_IOCTL, p.pagemap.Fd(), pagemapScan, uintptr(unsafe.Pointer(&arg)))
		if e != 0 {
			return e
		}
		for _, r := range p.regions[:n] {
			if r.categories&pageIsFile != 0 && !wantFile {
				continue
			}
			if err := f(r.start, r.end); err != nil {
				return err
			}
		}
		if arg.walkEnd <= at {
			return nil
		}
		at = arg.walkEnd
	}
	return nil
}

// walk reads /proc/PID/pagemap, 8 bytes a page (Documentation/admin-guide/mm/pagemap.rst).
func (p *process) walk(m mapping, wantFile bool, f func(start, end uint64) error) error {
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
			if e&(pagemapPresent|pagemapSwapped) != 0 && (wantFile || e&pagemapFileMask == 0) {
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

// read fills b from addr and returns which pages could be read: one that cannot was unmapped meanwhile.
func (p *process) read(addr uint64, b []byte) func(page int) bool {
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
	n, err := unix.ProcessVMReadv(p.pid, local, remote, 0)
	if err == nil && n == len(b) {
		return func(int) bool { return true }
	}
	// mem reads what process_vm_readv may not (PROT_NONE), and a page at a time finds those that are there
	good := make([]bool, len(b)/image.PageSize)
	for i := range good {
		o := i * image.PageSize
		k, err := p.mem.ReadAt(b[o:o+image.PageSize], int64(addr)+int64(o))
		good[i] = err == nil && k == image.PageSize
	}
	return func(page int) bool { return good[page] }
}
