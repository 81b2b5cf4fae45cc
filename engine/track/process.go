package track

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

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

// pages is how many pages of its own the process has, in memory and swapped out.
func (p *process) pages() uint64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	kilobytes := uint64(0)
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); key == "RssAnon" || key == "VmSwap" {
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			kilobytes += n
		}
	}
	return kilobytes << 10 / image.PageSize
}

// mapping is a line of /proc/PID/maps.
type mapping struct {
	start, end uint64
	offset     uint64 // in the file, in bytes
	perm, name string
	device     string
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
		m.perm, m.device = fields[1], fields[3]
		m.offset, _ = strconv.ParseUint(fields[2], 16, 64)
		m.inode, _ = strconv.ParseUint(fields[4], 10, 64)
		if len(fields) > 5 {
			m.name = fields[5]
		}
		ms = append(ms, m)
	}
	return ms, sc.Err()
}

func (m mapping) private() bool { return strings.HasSuffix(m.perm, "p") }

// memoryNames are how the kernel names mappings of files that exist in memory only.
var memoryNames = []string{"/dev/zero", "/memfd:", "/SYSV", "[anon_shmem:"}

// file says whether the pages may be those of a file on a file system, which is not copied.
func (m mapping) file() bool {
	return m.inode != 0 && !slices.ContainsFunc(memoryNames, func(name string) bool { return strings.HasPrefix(m.name, name) })
}

// anonymous says whether nothing but the program itself has ever put anything into the mapping.
func (m mapping) anonymous() bool { return m.private() && m.inode == 0 && !m.kernels() }

// kernels says whether the mapping is vdso, vvar or vsyscall: some pages at most, left to the final dump.
func (m mapping) kernels() bool { return strings.HasPrefix(m.name, "[v") }

// dumped says whether a dump has pages of the mapping: all but the kernel's own and shared files.
func (m mapping) dumped() bool { return !m.kernels() && (m.private() || !m.file()) }

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
