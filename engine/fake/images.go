package fake

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"

	"drover/engine"
	"drover/engine/image"
)

// treeFile holds what CRIU's images hold of a tree beyond memory.
const treeFile = "model.json"

// Magic numbers of the images that image.Check looks at (criu/include/magic.h).
const (
	magicCommon    = 0x54564319
	magicInventory = 0x58313116
	magicPstree    = 0x50273030
	magicCore      = 0x55053847
	magicMM        = 0x57492820
	magicIDs       = 0x54432030
	magicFS        = 0x51403912
)

func (p *proc) space() image.Space { return image.Space{Kind: image.Process, ID: uint64(p.Pid)} }

// dirOf is the path of an open directory, its own or, where it was opened by a process that sees another path, through it.
func dirOf(d *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", d.Fd()) }

// writeMemory sends the memory to pages, or writes it into images; with a parent, pages not written since are holes.
func (tr *tree) writeMemory(ctx context.Context, images, pages *os.File, parent string) (stats engine.Stats, err error) {
	dir := dirOf(images)
	if parent != "" {
		if err := os.Symlink(parent, filepath.Join(dir, "parent")); err != nil {
			return stats, err
		}
	}
	var sink image.PageSink = &files{dir: dir}
	if pages != nil {
		conn, err := net.FileConn(pages)
		if err != nil {
			return stats, fmt.Errorf("use the socket for pages: %w", err)
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		sink = image.SendPages(conn)
	}
	for _, p := range tr.procs {
		if err := sink.Open(p.space()); err != nil {
			return stats, err
		}
		var b [image.PageSize]byte
		for n := range p.Pages {
			stats.PagesScanned++
			if parent != "" && !tr.dirty[place{p.Pid, p.address(n)}] {
				stats.PagesParent++
				err = sink.Hole(p.address(n), image.PEParent, 1)
			} else {
				stats.PagesWritten++
				p.page(n, b[:])
				err = sink.Run(p.address(n), image.PEPresent, b[:])
			}
			if err != nil {
				return stats, err
			}
		}
	}
	return stats, sink.Close()
}

// files is a sink that writes CRIU's images.
type files struct {
	dir string
	n   uint32
	w   *image.PagemapWriter
}

func (f *files) Open(s image.Space) error {
	if err := f.Close(); err != nil {
		return err
	}
	f.n++
	var err error
	f.w, err = image.NewPagemapWriter(f.dir, s, f.n)
	return err
}

func (f *files) Run(addr uint64, flags uint32, data []byte) error { return f.w.Run(addr, flags, data) }

func (f *files) Hole(addr uint64, flags uint32, n uint64) error { return f.w.Hole(addr, flags, n) }

func (f *files) Close() error {
	if f.w == nil {
		return nil
	}
	return f.w.Close()
}

// writeRest writes everything but memory, the inventory last, as CRIU does.
func (tr *tree) writeRest(images *os.File) error {
	dir := dirOf(images)
	model, err := json.Marshal(tr.procs)
	if err != nil {
		return err
	}
	var failed []error
	failed = append(failed, os.WriteFile(filepath.Join(dir, treeFile), model, 0o600))
	var pstree [][]byte
	for _, p := range tr.procs {
		entry := message(1, uint64(p.Pid), 2, uint64(p.Parent), 3, uint64(p.Pid), 4, 1)
		for t := range p.Threads {
			entry = append(entry, message(5, uint64(p.Pid+t*len(tr.procs)))...)
		}
		pstree = append(pstree, entry)
		state := image.Alive
		if p.Stopped {
			state = image.Stopped
		}
		core := protowire.AppendBytes(protowire.AppendTag(message(1, 1), 3, protowire.BytesType), message(1, uint64(state), 2, 0))
		for kind, image := range map[string]struct {
			magic  uint32
			record []byte
		}{"core": {magicCore, core}, "mm": {magicMM, nil}, "ids": {magicIDs, nil}, "fs": {magicFS, nil}} {
			failed = append(failed, writeImage(dir, fmt.Sprintf("%s-%d.img", kind, p.Pid), image.record, magicCommon, image.magic))
		}
	}
	failed = append(failed, writeImages(dir, "pstree.img", pstree, magicCommon, magicPstree))
	failed = append(failed, writeImage(dir, "inventory.img", message(1, 2), magicInventory))
	return errors.Join(failed...)
}

func writeImage(dir, name string, record []byte, magic ...uint32) error {
	return writeImages(dir, name, [][]byte{record}, magic...)
}

func writeImages(dir, name string, records [][]byte, magic ...uint32) error {
	var b []byte
	for _, m := range magic {
		b = binary.LittleEndian.AppendUint32(b, m)
	}
	for _, r := range records {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(r))), r...)
	}
	return os.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// message is a protobuf message of varint fields, given as pairs of number and value.
func message(pairs ...uint64) (b []byte) {
	for i := 0; i < len(pairs); i += 2 {
		b = protowire.AppendVarint(protowire.AppendTag(b, protowire.Number(pairs[i]), protowire.VarintType), pairs[i+1])
	}
	return b
}
