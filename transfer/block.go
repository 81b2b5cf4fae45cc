package transfer

import (
	"time"

	"drover/internal/errs"
)

// op is what the caller of a Sender asked for.
type op uint8

const (
	opOffer op = iota
	opMap
	opHole
	opAbsent
	opSpace
	opDrop
	opRound
	opFrame
	opEnd
)

// item is one call.
type item struct {
	op    op
	space Space
	addr  uint64
	flags uint32
	n     uint64    // pages; the round's number
	frame *outFrame // opFrame
	file  *fileSum  // opFrame: the file that this frame ends
}

// block is a number of calls with their pages, the unit in which they go through the pipeline.
type block struct {
	items []item
	data  []byte   // the pages of all items that have some, in their order
	sums  []Digest // of each page
}

func newBlock() *block {
	return &block{data: make([]byte, 0, MaxRun*PageSize), sums: make([]Digest, 0, MaxRun), items: make([]item, 0, 64)}
}

func (b *block) reset() {
	clear(b.items) // lets go of frames
	b.items, b.data, b.sums = b.items[:0], b.data[:0], b.sums[:0]
}

func (b *block) hash(d *digester) {
	for at := 0; at < len(b.data); at += PageSize {
		b.sums = append(b.sums, d.page(b.data[at:at+PageSize]))
	}
}

// pages adds a call that brings pages.
func (s *Sender) pages(i item, data []byte) error {
	if len(data) == 0 || len(data)%PageSize != 0 || len(data) > MaxRun*PageSize || i.addr%PageSize != 0 {
		return errs.New(errs.Invalid, "%d bytes at %#x of space %s are no run of 1 to %d pages: %w", len(data), i.addr, i.space, MaxRun, ErrMisuse)
	}
	i.n = uint64(len(data) / PageSize)
	return s.add(i, data)
}

// add appends a call to the open block and sends off a full one.
func (s *Sender) add(i item, data []byte) error {
	line, err := s.ready()
	if err != nil {
		return err
	}
	if line.add(s.ctx, i, data) != nil {
		return s.broken()
	}
	return nil
}

// flush sends off the open block.
func (s *Sender) flush() error {
	line, err := s.ready()
	if err != nil {
		return err
	}
	if line.flush(s.ctx) != nil {
		return s.broken()
	}
	return nil
}

// ready is the pipeline of a stream that takes more calls.
func (s *Sender) ready() (*pipeline, error) {
	if s.ended {
		return nil, errs.New(errs.Conflict, "page stream of %s: it has been finished: %w", s.config.Migration, ErrMisuse)
	}
	line := s.line.Load()
	if line == nil || s.ctx.Err() != nil {
		return nil, s.broken()
	}
	return line, nil
}

// outFrame is a frame on its way through packing.
type outFrame struct {
	kind   FrameType
	buf    []byte // from newBuffer: headSize bytes of room, then the payload; nil: sealed already
	sealed []byte
}

// pack seals the frame. A buffer that is sent as it is stays with the frame; one that was packed is free again.
func (f *outFrame) pack(p *packer, choice *chooser) {
	if f.buf == nil {
		return
	}
	way, raw, began := choice.now(), len(f.buf)-headSize, time.Now()
	var inPlace bool
	buf := f.buf
	f.sealed, inPlace = p.pack(buf, f.kind, way)
	choice.packed(way, raw, len(f.sealed), time.Since(began))
	if raw >= worthKnowing {
		if other, ok := choice.probe(); ok {
			sample := buf[headSize : headSize+probeSample]
			choice.compared(way, other, p.cost(sample, way), p.cost(sample, other))
		}
	}
	if !inPlace {
		giveBack(buf)
	}
	f.buf = nil
}
