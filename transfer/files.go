package transfer

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"drover/internal/errs"
)

// fileSum is what the manifest says of a file.
type fileSum struct {
	kind string
	meta []byte
	size uint64
	sum  [32]byte
}

// File sends a file: between rounds, between spaces, or after the last one. kind (1 to 32 bytes) and meta (at most 64 KiB)
// are the target's to understand. size is how many bytes r must give, or -1 for whatever it gives; one that gives more or
// fewer fails the stream, because the target already has the beginning.
func (s *Sender) File(kind string, meta []byte, size int64, r io.Reader) error {
	if len(kind) == 0 || len(kind) > kindMax || len(meta) > metaMax {
		return errs.New(errs.Invalid, "file of kind %q with %d bytes of metadata: at most %d and %d bytes: %w", kind, len(meta), kindMax, metaMax, ErrMisuse)
	}
	head := append(append([]byte{byte(len(kind))}, kind...), meta...)
	if err := s.frame(&outFrame{kind: fFile, sealed: plainFrame(fFile, head)}, nil); err != nil {
		return err
	}
	f := &fileSum{kind: kind, meta: append([]byte(nil), meta...)}
	if err := s.content(f, r); err != nil {
		return s.fatal(fmt.Errorf("send file of kind %s: %w", kind, err))
	}
	if size >= 0 && f.size != uint64(size) {
		return s.fatal(errs.New(errs.Failed, "send file of kind %s: it has %d bytes, not %d: it was changed meanwhile", kind, f.size, size))
	}
	tail := append(binary.LittleEndian.AppendUint64(nil, f.size), f.sum[:]...)
	return s.frame(&outFrame{kind: fClose, sealed: plainFrame(fClose, tail)}, f)
}

func (s *Sender) content(f *fileSum, r io.Reader) error {
	sum := sha256.New()
	for {
		buf := newBuffer()
		n, err := io.ReadFull(r, buf[headSize:headSize+dataMax])
		buf = buf[:headSize+n]
		if n > 0 {
			sum.Write(buf[headSize:])
			f.size += uint64(n)
			s.count.file(n)
			if err := s.frame(&outFrame{kind: fData, buf: buf}, nil); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			sum.Sum(f.sum[:0])
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// frame sends a frame after everything that was called before. Each has a block to itself, so that only the pipeline's
// depth is ever under way.
func (s *Sender) frame(f *outFrame, ends *fileSum) error {
	line, err := s.ready()
	if err != nil {
		return err
	}
	if line.flush(s.ctx) != nil || line.hashing.put(s.ctx, &block{items: []item{{op: opFrame, frame: f, file: ends}}}) != nil {
		return s.broken()
	}
	return nil
}

// fatal ends the stream.
func (s *Sender) fatal(err error) error {
	s.fail(err)
	return s.broken()
}
