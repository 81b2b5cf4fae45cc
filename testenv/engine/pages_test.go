package engine_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"drover/engine/image"
)

// Documentation/admin-guide/mm/pagemap.rst
const (
	entryPresent  = 1 << 63
	entrySwapped  = 1 << 62
	entryFile     = 1 << 61
	entryFrame    = 1<<55 - 1
	frameIsZeroes = 1 << 24 // KPF_ZERO_PAGE: the kernel's, which a program that only reads is given
)

// frozenPages reads a process's memory page by page.
type frozenPages struct{ mem, pagemap, frames *os.File }

// eachOwnPage calls f with every page of private memory that a frozen process has; zero says that it is the kernel's page of zeroes.
func eachOwnPage(pid int, f func(addr uint64, data []byte, zero bool) error) (err error) {
	var p frozenPages
	for name, to := range map[string]**os.File{fmt.Sprintf("/proc/%d/mem", pid): &p.mem, fmt.Sprintf("/proc/%d/pagemap", pid): &p.pagemap, "/proc/kpageflags": &p.frames} {
		if *to, err = os.Open(name); err != nil {
			return err
		}
		defer (*to).Close()
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		var start, end uint64
		var perm string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &perm); err != nil {
			return err
		}
		if !strings.HasSuffix(perm, "p") || strings.Contains(line, "[v") { // shared memory and the kernel's own are the dump's
			continue
		}
		if err := p.each(start, end, f); err != nil {
			return err
		}
	}
	return nil
}

func (p *frozenPages) each(start, end uint64, f func(addr uint64, data []byte, zero bool) error) error {
	entries, data := make([]byte, 1<<16*8), make([]byte, image.PageSize)
	for start < end {
		n, err := p.pagemap.ReadAt(entries[:min(uint64(len(entries)), (end-start)/image.PageSize*8)], int64(start/image.PageSize*8))
		if err != nil {
			return fmt.Errorf("read the pagemap at %#x: %w", start, err)
		}
		for i := 0; i < n; i, start = i+8, start+image.PageSize {
			e := binary.LittleEndian.Uint64(entries[i:])
			if e&(entryPresent|entrySwapped) == 0 || e&entryFile != 0 {
				continue
			}
			if _, err := p.mem.ReadAt(data, int64(start)); err != nil {
				return fmt.Errorf("read page %#x: %w", start, err)
			}
			var flags [8]byte
			if e&entryPresent != 0 {
				if _, err := p.frames.ReadAt(flags[:], int64(e&entryFrame*8)); err != nil {
					return fmt.Errorf("read the flags of page %#x: %w", start, err)
				}
			}
			if err := f(start, data, binary.LittleEndian.Uint64(flags[:])&frameIsZeroes != 0); err != nil {
				return err
			}
		}
	}
	return nil
}
