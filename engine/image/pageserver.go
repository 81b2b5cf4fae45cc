package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Commands of CRIU's page-server protocol (criu/page-xfer.c), the low 16 bits of a header's first word; the high 16 bits are
// the pagemap entry's flags.
const (
	psAdd        = 1 // nr pages of data follow
	psHole       = 2 // the pages are in the parent
	psOpen       = 3
	psOpen2      = 4 // answered by one byte: 1 if there is a parent
	psParent     = 5 // answered by an int32 likewise
	psAddF       = 6 // data follows if the flags have PEPresent
	psClose      = 0x1023
	psForceClose = 0x1024

	psHeader = 32 // CRIU 4.2: u32 command, u32 padding, u64 pages, u64 address, u64 destination; 4.1 had 24

	// maxRun is the longest run handed to a sink, in pages.
	maxRun = 256
	// maxPages bounds one command: 2^40 bytes, more than any address space CRIU describes in one entry.
	maxPages = 1 << 28
)

// ErrProtocol is what ServePages fails with when the peer does not speak the protocol of CRIU 4.2.
var ErrProtocol = errors.New("not CRIU 4.2's page-server protocol")

// ServePages is the server's side of one dump: it reads from conn until the client closes its dump, hands everything to sink
// and acknowledges only once sink.Close has succeeded. hasParent answers whether a space has a parent image; nil means never.
// It uses about 1 MiB of memory; what is longer than its small buffer is read straight into
// the run handed over. When it fails the caller closes conn, upon which CRIU rolls
// the dump back and the tree runs on. The caller ends it early by closing conn.
func ServePages(conn io.ReadWriter, sink PageSink, hasParent func(Space) bool) error {
	if hasParent == nil {
		hasParent = func(Space) bool { return false }
	}
	s := pageServer{r: bufio.NewReaderSize(conn, 16<<10), w: conn, sink: sink, hasParent: hasParent, buf: make([]byte, maxRun*PageSize)}
	for {
		done, err := s.command()
		if err != nil {
			return fmt.Errorf("receive pages: %w", err)
		}
		if done {
			return nil
		}
	}
}

type pageServer struct {
	r         *bufio.Reader
	w         io.Writer
	sink      PageSink
	hasParent func(Space) bool
	buf       []byte
	open      bool
}

// command serves one command and says whether it was the last.
func (s *pageServer) command() (bool, error) {
	var h [psHeader]byte
	if _, err := io.ReadFull(s.r, h[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return false, err
	}
	cmd := binary.LittleEndian.Uint32(h[0:])
	n := binary.LittleEndian.Uint64(h[8:])
	addr := binary.LittleEndian.Uint64(h[16:])
	dst := binary.LittleEndian.Uint64(h[24:])
	if cmd == psClose || cmd == psForceClose {
		if err := s.sink.Close(); err != nil {
			return false, err
		}
		_, err := s.w.Write(make([]byte, 4))
		return true, err
	}
	op, flags := cmd&0xffff, cmd>>16
	switch op {
	case psOpen, psOpen2:
		return false, s.openSpace(op, dst)
	case psParent:
		sp, err := space(dst)
		if err != nil {
			return false, err
		}
		return false, s.answer(sp, 4)
	case psAdd:
		flags = PEPresent
	case psHole:
		flags = PEParent
	case psAddF:
	default:
		return false, fmt.Errorf("%w: command %#x", ErrProtocol, cmd)
	}
	if !s.open || n == 0 || n > maxPages || addr%PageSize != 0 || addr+n*PageSize < addr {
		return false, fmt.Errorf("%w: %d pages at %#x", ErrProtocol, n, addr)
	}
	if flags&PEPresent == 0 {
		return false, s.sink.Hole(addr, flags, n)
	}
	return false, s.runs(addr, flags, n)
}

func (s *pageServer) openSpace(op uint32, dst uint64) error {
	sp, err := space(dst)
	if err != nil {
		return err
	}
	if err := s.sink.Open(sp); err != nil {
		return err
	}
	s.open = true
	if op == psOpen2 {
		return s.answer(sp, 1)
	}
	return nil
}

// answer says whether a space has a parent, in a little-endian number of size bytes.
func (s *pageServer) answer(sp Space, size int) error {
	b := make([]byte, size)
	if s.hasParent(sp) {
		b[0] = 1
	}
	_, err := s.w.Write(b)
	return err
}

func (s *pageServer) runs(addr uint64, flags uint32, n uint64) error {
	for n > 0 {
		k := min(n, maxRun)
		b := s.buf[:k*PageSize]
		if _, err := io.ReadFull(s.r, b); err != nil {
			return err
		}
		if err := s.sink.Run(addr, flags, b); err != nil {
			return err
		}
		addr, n = addr+k*PageSize, n-k
	}
	return nil
}

// space decodes a destination: the id in the high bits, the kind in the low byte (criu/page-xfer.c encode_pm). There is no
// process 0, but the first System V segment of an IPC namespace has the id 0.
func space(dst uint64) (Space, error) {
	sp := Space{Kind: SpaceKind(dst & 0xff), ID: dst >> 8}
	known := sp.Kind == Process && sp.ID > 0 || sp.Kind == Shmem
	if !known || sp.ID > 1<<32 {
		return sp, fmt.Errorf("%w: destination %#x", ErrProtocol, dst)
	}
	return sp, nil
}
