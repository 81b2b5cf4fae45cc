package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/testenv/victims/vital"
)

// counts are kept in memory that all processes share.
type counts struct {
	Pages, Written, Changes, Forks, Faults uint64
}

// Report is what the first process says for all.
type Report struct {
	Processes int    `json:"processes"`
	Pages     uint64 `json:"pages"` // that hold something, at the last change
	Written   uint64 `json:"written"`
	Changes   uint64 `json:"changes"`
	Forks     uint64 `json:"forks"`
	Faults    uint64 `json:"faults"`
}

func (c *counts) report(processes int) Report {
	return Report{processes, atomic.LoadUint64(&c.Pages), atomic.LoadUint64(&c.Written), atomic.LoadUint64(&c.Changes), atomic.LoadUint64(&c.Forks), atomic.LoadUint64(&c.Faults)}
}

func (c *counts) fault(err error) {
	if atomic.AddUint64(&c.Faults, 1) < 10 {
		fmt.Fprintln(os.Stderr, err)
	}
}

// counted is the descriptor of the counts.
var counted = countsFd

// countsOf makes the counts in the first process, and finds them in the others.
func countsOf(member int) (*counts, error) {
	if member == 0 {
		var err error
		if counted, err = unix.MemfdCreate("counts", unix.MFD_CLOEXEC); err != nil {
			return nil, err
		}
		if err := unix.Ftruncate(counted, vital.PageSize); err != nil {
			return nil, err
		}
	}
	b, err := unix.Mmap(counted, 0, vital.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the counts: %w", err)
	}
	return (*counts)(unsafe.Pointer(&b[0])), nil
}
