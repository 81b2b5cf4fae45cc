package vm_test

import (
	"bytes"
	"fmt"

	"drover/engine/image"
)

// target is what a target has of a tree's memory: of each page what was emitted last.
type target map[image.Space]map[uint64][]byte

func (r target) take(s image.Space, addr uint64, data []byte) error {
	if r[s] == nil {
		r[s] = map[uint64][]byte{}
	}
	for i := 0; i < len(data); i += image.PageSize {
		r[s][addr+uint64(i)] = bytes.Clone(data[i : i+image.PageSize])
	}
	return nil
}

// assembly is a page sink that writes complete images: what the dump holds to be in its parent it takes from what was received.
type assembly struct {
	received target
	dir      string
	space    image.Space
	files    uint32
	w        *image.PagemapWriter
}

func (a *assembly) Open(s image.Space) (err error) {
	if err := a.Close(); err != nil {
		return err
	}
	a.files++
	a.space = s
	a.w, err = image.NewPagemapWriter(a.dir, s, a.files)
	return err
}

func (a *assembly) Run(addr uint64, flags uint32, data []byte) error {
	return a.w.Run(addr, flags, data)
}

func (a *assembly) Hole(addr uint64, flags uint32, n uint64) error {
	if flags&image.PEParent == 0 {
		return a.w.Hole(addr, flags, n)
	}
	for end := addr + n*image.PageSize; addr < end; addr += image.PageSize {
		page, ok := a.received[a.space][addr]
		if !ok {
			return fmt.Errorf("page %#x of %s is said to be in the parent, and no round emitted it", addr, a.space)
		}
		if err := a.w.Run(addr, flags&^image.PEParent|image.PEPresent, page); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the space that is open, if any.
func (a *assembly) Close() error {
	if a.w == nil {
		return nil
	}
	w := a.w
	a.w = nil
	return w.Close()
}
