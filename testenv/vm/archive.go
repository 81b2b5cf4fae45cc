package vm

import (
	"bytes"
	"fmt"
	"os"

	"drover/internal/errs"
)

// archive is a cpio archive in the kernel's "newc" format, as it takes for an initramfs.
type archive struct {
	out    bytes.Buffer
	inodes int
}

const (
	aFolder  = 0o40755
	aProgram = 0o100755
)

func (a *archive) folder(name string) { a.entry(name, aFolder, nil) }

func (a *archive) program(name, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return errs.New(errs.Failed, "pack %s: %w", name, err)
	}
	a.entry(name, aProgram, data)
	return nil
}

func (a *archive) entry(name string, mode int, data []byte) {
	a.inodes++
	// inode, mode, uid, gid, links, time, size, device and special device (two numbers each), length of name, checksum
	fmt.Fprintf(&a.out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inodes, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.out.WriteString(name + "\x00")
	a.align()
	a.out.Write(data)
	a.align()
}

func (a *archive) align() { a.out.Write(make([]byte, -a.out.Len()&3)) }

// bytes ends the archive.
func (a *archive) bytes() []byte {
	a.entry("TRAILER!!!", 0, nil)
	return a.out.Bytes()
}
