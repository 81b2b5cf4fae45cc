package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"

	"drover/internal/errs"
)

// planner turns what the caller said into frames: it knows what the target holds. It is used by one goroutine.
type planner struct {
	limit  uint32
	table  *pageTable
	seed   maphash.Seed // of the pieces' hashes
	sum    *manifest
	root   [32]byte // once the end is planned
	count  *counters
	emit   func(*outFrame) error
	digest *digester
	puts   putWriter // PUT being filled
	maps   []byte    // MAP being filled, nil if none
	last   uint32    // for appendEntry, within maps
	space  Space
	began  bool // space is the one under way
	above  uint64
	mapped map[Space]bool
	slots  [MaxRun]uint32
	sums   [MaxRun]Digest
}

// newPlanner makes a planner, whose table must be closed.
func newPlanner(limit uint32, digest *digester, count *counters, emit func(*outFrame) error) (*planner, error) {
	table, err := newPageTable(limit)
	if err != nil {
		return nil, err
	}
	p := &planner{limit: limit, table: table, digest: digest, seed: maphash.MakeSeed(), sum: newManifest(), count: count, emit: emit, mapped: map[Space]bool{}}
	p.table.rows[0].pieces = sumPieces(p.seed, zeros[:PageSize])
	return p, nil
}

// block plans a block's calls in their order.
func (p *planner) block(b *block) error {
	page := 0
	for _, i := range b.items {
		var data []byte
		var sums []Digest
		if i.op == opOffer || i.op == opMap {
			n := int(i.n)
			data, sums = b.data[page*PageSize:(page+n)*PageSize], b.sums[page:page+n]
			page += n
		}
		if err := p.item(i, data, sums); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) item(i item, data []byte, sums []Digest) error {
	switch i.op {
	case opOffer:
		return p.hold(i, data, sums)
	case opMap:
		if err := p.hold(i, data, sums); err != nil {
			return err
		}
		return p.enter(entry{i.addr, i.flags, int(i.n), p.slots[:i.n]}, i.space, sums)
	case opHole:
		return p.hole(i)
	case opAbsent:
		return p.enter(entry{i.addr, i.flags, int(i.n), nil}, i.space, nil)
	case opSpace:
		return p.begin(i.space)
	case opDrop:
		p.table.drop(i.space)
		return nil
	case opRound:
		defer p.table.endRound()
		return p.small(fRound, binary.LittleEndian.AppendUint32(nil, uint32(i.n)))
	case opFrame:
		if i.file != nil {
			p.sum.file(i.file.kind, i.file.meta, i.file.size, i.file.sum)
		}
		if err := p.flush(); err != nil {
			return err
		}
		return p.emit(i.frame)
	case opEnd:
		p.root = p.sum.root()
		return p.small(fEnd, p.root[:])
	}
	panic(fmt.Sprintf("transfer: unknown op %d", i.op)) //nolint:forbidigo // ops are made in this package alone
}

// hold notes the pages' content in the table, plans to send what is new, and leaves the pages' slots in p.slots.
func (p *planner) hold(i item, data []byte, sums []Digest) error {
	n := pageCount{offered: uint64(len(sums))}
	for at, sum := range sums {
		h, err := p.table.hold(i.space, i.addr+uint64(at)*PageSize, sum)
		if errors.Is(err, ErrSlots) {
			return errs.New(errs.Refused, "page %#x of space %s: %w (%d pages)", i.addr, i.space, err, p.limit).
				WithNext("free memory on the target, or choose another one")
		} else if err != nil {
			return err
		}
		p.slots[at] = h.slot
		if h.slot == 0 {
			n.zero++
		}
		if h.met { // what changes of it from now on can go as a patch
			n.found++
			p.table.rows[h.slot].pieces = sumPieces(p.seed, data[at*PageSize:(at+1)*PageSize])
		}
		if !h.put {
			continue
		}
		n.sent++
		left, err := p.send(h, sum, data[at*PageSize:(at+1)*PageSize])
		if err != nil {
			return err
		}
		if left > 0 {
			n.patched++
			n.saved += uint64(left)
		}
	}
	p.count.pages(n, uint64(p.table.next-1))
	return nil
}

// send plans a page, as a patch if enough of it stands in another slot, and says how many bytes were left out.
func (p *planner) send(h holding, sum Digest, page []byte) (left int, err error) {
	rows := p.table.rows
	rows[h.slot].pieces = sumPieces(p.seed, page)
	e := put{slot: h.slot, mask: rows[h.slot].pieces.differ(&rows[h.base].pieces)}
	// A page that differs in no piece has one whose hash is as before, although its content is not.
	if n := bits.OnesCount8(e.mask); h.had && n > 0 && n <= patchMost {
		e.base, left = h.base, PageSize-n*pieceSize
	} else {
		e.mask = allPieces
	}
	p.puts.add(e, sum, page)
	if p.puts.full() {
		return left, p.flushPuts()
	}
	return left, nil
}

// hole plans pages as they were last offered.
func (p *planner) hole(i item) error {
	for n := range i.n {
		slot, ok := p.table.slotAt(i.space, i.addr+n*PageSize)
		if !ok {
			return errs.New(errs.Failed, "page %#x of space %s: %w", i.addr+n*PageSize, i.space, ErrNeverOffered)
		}
		p.slots[n] = slot
		if p.sums[n] = zeroDigest; slot != 0 {
			p.sums[n] = p.table.rows[slot].sum
		}
	}
	return p.enter(entry{i.addr, i.flags, int(i.n), p.slots[:i.n]}, i.space, p.sums[:i.n])
}

// enter plans a map entry, after the PUTs it needs.
func (p *planner) enter(e entry, s Space, sums []Digest) error {
	if !p.began || p.space != s {
		if err := p.begin(s); err != nil {
			return err
		}
	}
	if e.addr < p.above {
		return errs.New(errs.Failed, "page %#x of space %s comes after %#x: %w", e.addr, s, p.above, ErrMisuse)
	}
	p.above = e.addr + uint64(e.pages)*PageSize
	p.sum.run(s, e.addr, e.flags, e.pages, sums)
	if p.maps == nil {
		p.maps, p.last = newBuffer(), 0
	}
	p.maps = appendEntry(p.maps, e, &p.last)
	if len(p.maps)-headSize > mapMax-entryMax {
		return p.flush()
	}
	return nil
}

// begin plans the start of a space.
func (p *planner) begin(s Space) error {
	if p.mapped[s] {
		return errs.New(errs.Failed, "space %s is mapped a second time: %w", s, ErrMisuse)
	}
	p.mapped[s] = true
	p.space, p.began, p.above = s, true, 0
	return p.small(fSpace, binary.LittleEndian.AppendUint64([]byte{s.Kind}, s.ID))
}

// small plans a frame that is not worth packing, after all that was planned before.
func (p *planner) small(t FrameType, payload []byte) error {
	if err := p.flush(); err != nil {
		return err
	}
	return p.emit(&outFrame{kind: t, sealed: plainFrame(t, payload)})
}

func (p *planner) flushPuts() error {
	if p.puts.empty() {
		return nil
	}
	return p.emit(&outFrame{kind: fPut, buf: p.puts.finish(p.digest)})
}

// flush emits the frames being filled: first the pages, then the entries that name them.
func (p *planner) flush() error {
	if err := p.flushPuts(); err != nil || p.maps == nil {
		return err
	}
	buf := p.maps
	p.maps = nil
	return p.emit(&outFrame{kind: fMap, buf: buf})
}
