// Package sealed keeps pages in a file on a disk that are a tree's memory, and so may hold its secrets: encrypted, under a key that
// is nowhere but in memory, in a file that has no name. It owns the file's form and its key; which page is which is its caller's.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// PageSize is the size of a page, in bytes.
const PageSize = 4096

// Each write of a page is AES-256-GCM under the file's key and a nonce that counts the writes: none comes twice under one key, and what
// a page's place held before says nothing of what it holds now. A page that the disk gives back changed is not opened.
//
// What opens the pages stands in a table in memory, another file without a name, so that a second process can be given both: one page
// with the magic number, how many pages there may be, and the key; then for each page the count of its last write, 0 for none, and its
// tag. Numbers are of 64 bits, in the host's order.
const (
	magic    = 0x64726f7665723032 // "drover02"
	keySize  = 32
	tagSize  = 16
	headSize = PageSize
	rowSize  = 8 + tagSize
	keyAt    = 16
	// mostPages bounds what a table may claim: 8 TiB.
	mostPages = 1 << 31
)

// Pages is such a file. Reading from several goroutines is safe while nobody writes.
type Pages struct {
	data, table *os.File
	mem         []byte // the table
	pages       uint32
	writes      uint64
	aead        cipher.AEAD
	buffers     sync.Pool // of *[PageSize + tagSize]byte
}

// Create makes an empty file for so many pages in a directory. The kernel frees it when the last process that has it ends: it never had
// a name. It takes room where it is written.
func Create(dir string, pages uint32) (*Pages, error) {
	if pages == 0 || pages > mostPages {
		return nil, errs.New(errs.Invalid, "a sealed file of %d pages", pages)
	}
	data, err := unnamed(dir)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("drover-seals", unix.MFD_CLOEXEC)
	if err != nil {
		data.Close()
		return nil, errs.New(errs.Failed, "make a table of seals: %w", err)
	}
	table := os.NewFile(uintptr(fd), "drover-seals")
	p := &Pages{data: data, table: table, pages: pages}
	err = table.Truncate(headSize + int64(pages)*rowSize)
	if err == nil {
		err = p.open(unix.PROT_READ | unix.PROT_WRITE)
	}
	if err == nil {
		binary.NativeEndian.PutUint64(p.mem, magic)
		binary.NativeEndian.PutUint64(p.mem[8:], uint64(pages))
		rand.Read(p.key()) // never fails (crypto/rand)
		err = p.arm()
	}
	if err != nil {
		p.Close()
		return nil, errs.New(errs.Failed, "make a table of seals: %w", err)
	}
	return p, nil
}

// unnamed opens a new file without a name.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), dir), nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR):
		return nil, errs.New(errs.Unavailable, "the file system of %s makes no files without a name (O_TMPFILE): %w", dir, err).
			WithNext("name a directory on ext4, xfs or btrfs")
	}
	return nil, errs.New(errs.Failed, "make a file in %s: %w", dir, err)
}

// Check says why pages cannot be kept in a directory, or would take memory there.
func Check(dir string) error {
	f, err := unnamed(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return errs.New(errs.Failed, "look at the file system of %s: %w", dir, err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return errs.New(errs.Invalid, "%s is itself in memory", dir).WithNext("name a directory on a disk")
	}
	return nil
}

// Open opens another process's file and table, for reading. Both stay the caller's.
func Open(data, table *os.File) (*Pages, error) {
	info, err := table.Stat()
	if err != nil {
		return nil, errs.New(errs.Failed, "look at a table of seals: %w", err)
	}
	rows := info.Size() - headSize
	if rows <= 0 || rows%rowSize != 0 || rows/rowSize > mostPages {
		return nil, errs.New(errs.Invalid, "a table of seals has %d bytes", info.Size())
	}
	p := &Pages{data: data, table: table, pages: uint32(rows / rowSize)}
	if err := p.open(unix.PROT_READ); err != nil {
		_ = p.Release()
		return nil, errs.New(errs.Failed, "open a table of seals: %w", err)
	}
	if binary.NativeEndian.Uint64(p.mem) != magic || binary.NativeEndian.Uint64(p.mem[8:]) != uint64(p.pages) {
		return nil, errors.Join(errs.New(errs.Invalid, "a table of seals is none"), p.Release())
	}
	return p, p.arm()
}

// open maps the table. Its first page, with the key, is not written to a swap device, and none of it to a core dump.
func (p *Pages) open(prot int) (err error) {
	size := headSize + int(p.pages)*rowSize
	if p.mem, err = unix.Mmap(int(p.table.Fd()), 0, size, prot, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
		return err
	}
	return errors.Join(unix.Mlock(p.mem[:headSize]), unix.Madvise(p.mem, unix.MADV_DONTDUMP))
}

func (p *Pages) key() []byte { return p.mem[keyAt : keyAt+keySize] }

func (p *Pages) arm() error {
	block, err := aes.NewCipher(p.key())
	if err != nil {
		return err
	}
	p.aead, err = cipher.NewGCM(block)
	return err
}

// Len is how many pages there may be, numbered from 0.
func (p *Pages) Len() uint32 { return p.pages }

// Files are the file and its table, for Open in another process. They stay p's.
func (p *Pages) Files() (data, table *os.File) { return p.data, p.table }

func (p *Pages) row(n uint32) []byte { return p.mem[headSize+int(n)*rowSize:][:rowSize] }

func nonce(write uint64) (n [12]byte) {
	binary.NativeEndian.PutUint64(n[4:], write)
	return n
}

// Write puts a page in place n. After an error n may hold nothing that can be read.
func (p *Pages) Write(n uint32, page []byte) error {
	if n >= p.pages || len(page) != PageSize {
		return errs.New(errs.Invalid, "%d bytes for page %d of %d", len(page), n, p.pages)
	}
	p.writes++
	buf := p.buffer()
	defer p.buffers.Put(buf)
	iv := nonce(p.writes)
	p.aead.Seal(buf[:0], iv[:], page, nil)
	if _, err := p.data.WriteAt(buf[:PageSize], int64(n)*PageSize); err != nil {
		return errs.New(errs.Failed, "write to the file in %s: %w", p.data.Name(), err).WithNext("see whether its disk is full")
	}
	row := p.row(n)
	binary.NativeEndian.PutUint64(row, p.writes)
	copy(row[8:], buf[PageSize:])
	return nil
}

// Read fills buf, which has room for whole pages, with those from n on, which have all been written.
func (p *Pages) Read(n uint32, buf []byte) error {
	count := uint64(len(buf)) / PageSize
	if len(buf)%PageSize != 0 || uint64(n)+count > uint64(p.pages) {
		return errs.New(errs.Invalid, "%d bytes of pages from %d of %d", len(buf), n, p.pages)
	}
	if _, err := p.data.ReadAt(buf, int64(n)*PageSize); err != nil {
		return errs.New(errs.Failed, "read the pages kept on a disk: %w", err)
	}
	sealed := p.buffer()
	defer p.buffers.Put(sealed)
	for ; len(buf) > 0; n, buf = n+1, buf[PageSize:] {
		row := p.row(n)
		copy(sealed[:], buf[:PageSize])
		copy(sealed[PageSize:], row[8:])
		write := binary.NativeEndian.Uint64(row)
		iv := nonce(write)
		if write == 0 {
			return errs.New(errs.Failed, "page %d was never kept on the disk", n)
		}
		if _, err := p.aead.Open(buf[:0], iv[:], sealed[:], nil); err != nil {
			return errs.New(errs.Failed, "page %d is not what was written to the disk: %w", n, err)
		}
	}
	return nil
}

func (p *Pages) buffer() *[PageSize + tagSize]byte {
	if b, ok := p.buffers.Get().(*[PageSize + tagSize]byte); ok {
		return b
	}
	return new([PageSize + tagSize]byte)
}

// Release lets go of what Open opened, and closes neither file. It may be called again.
func (p *Pages) Release() error {
	if p.mem == nil {
		return nil
	}
	b := p.mem
	p.mem, p.aead = nil, nil
	return unix.Munmap(b)
}

// Close gives back what Create made. It may be called again.
func (p *Pages) Close() error {
	if p.data == nil {
		return nil
	}
	err := errors.Join(p.Release(), p.data.Close(), p.table.Close())
	p.data = nil
	return err
}
