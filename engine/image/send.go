package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrUnacknowledged is what a PageSender's Close fails with when the server did not say that it has everything.
var ErrUnacknowledged = errors.New("the page server did not acknowledge")

// PageSender is the client's side of the protocol that ServePages serves, as CRIU speaks it in a dump. It is a PageSink: what is
// put into it comes out of the sink behind the server. Not safe for concurrent use.
type PageSender struct {
	conn io.ReadWriter
	w    *bufio.Writer
	dst  uint64
}

// SendPages begins a conversation with a page server on conn, which stays the caller's to close.
func SendPages(conn io.ReadWriter) *PageSender {
	return &PageSender{conn: conn, w: bufio.NewWriterSize(conn, 256<<10)}
}

// Open implements PageSink. It waits for the server's answer.
func (p *PageSender) Open(s Space) error {
	p.dst = s.ID<<8 | uint64(s.Kind)
	if err := p.command(psOpen2, 0, 0, 0); err != nil {
		return err
	}
	var parent [1]byte
	return p.answer(parent[:])
}

// Run implements PageSink; data may be any number of whole pages.
func (p *PageSender) Run(addr uint64, flags uint32, data []byte) error {
	if err := p.command(psAddF, flags|PEPresent, uint64(len(data)/PageSize), addr); err != nil {
		return err
	}
	_, err := p.w.Write(data)
	return err
}

// Hole implements PageSink.
func (p *PageSender) Hole(addr uint64, flags uint32, n uint64) error {
	return p.command(psAddF, flags&^PEPresent, n, addr)
}

// Close implements PageSink: it returns nil once the server has everything safe.
func (p *PageSender) Close() error {
	p.dst = 0
	if err := p.command(psClose, 0, 0, 0); err != nil {
		return err
	}
	var status [4]byte
	if err := p.answer(status[:]); err != nil {
		return err
	}
	if status != [4]byte{} {
		return ErrUnacknowledged
	}
	return nil
}

func (p *PageSender) command(op, flags uint32, n, addr uint64) error {
	var h [psHeader]byte
	binary.LittleEndian.PutUint32(h[0:], op|flags<<16)
	binary.LittleEndian.PutUint64(h[8:], n)
	binary.LittleEndian.PutUint64(h[16:], addr)
	binary.LittleEndian.PutUint64(h[24:], p.dst)
	_, err := p.w.Write(h[:])
	return err
}

// answer flushes and reads len(b) bytes.
func (p *PageSender) answer(b []byte) error {
	if err := p.w.Flush(); err != nil {
		return err
	}
	if _, err := io.ReadFull(p.conn, b); err != nil {
		return fmt.Errorf("%w: %w", ErrUnacknowledged, err)
	}
	return nil
}
