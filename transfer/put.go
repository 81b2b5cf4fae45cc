package transfer

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// put is one page of PUT.
type put struct {
	slot   uint32 // to be written
	base   uint32 // whose content the page has where mask has no bit
	mask   uint8  // bit n: the piece at n*pieceSize is among pieces
	pieces []byte
}

func (p put) whole() bool { return p.mask == allPieces }

// putWriter fills a PUT frame. What describes the pages stands behind their content and not between it, with one digest for
// all of them, for it compresses badly and breaks up what would compress: beside each page it cost a tenth of the frame.
type putWriter struct {
	buf     []byte   // headSize bytes of room, then the pieces; nil until the first page
	entries []byte   // of the runs that are complete
	sums    []Digest // of each page
	next    uint32   // the slot after the last page's
	base    uint32   // the slot after the last base
	run     putRun
}

// putRun is a run being written: pages that are whole, or that are patched, of slots that follow each other.
type putRun struct {
	pages   uint32
	patched bool
	from    int64  // first slot less the slot after the last run
	bases   []byte // patched: of each page its base and its mask
}

func (w *putWriter) empty() bool { return w.buf == nil }

// full says that there may be no room for another page.
func (w *putWriter) full() bool { return len(w.buf)-headSize > MaxRun*PageSize-PageSize }

// add writes a page, whose pieces are chosen by p's mask, and whose digest is sum.
func (w *putWriter) add(p put, sum Digest, page []byte) {
	if w.buf == nil {
		w.buf = newBuffer()
	}
	if w.run.pages == 0 || w.run.patched == p.whole() || p.slot != w.next {
		w.endRun()
		w.run.patched, w.run.from = !p.whole(), int64(p.slot)-int64(w.next)
	}
	w.run.pages++
	w.next = p.slot + 1
	w.sums = append(w.sums, sum)
	if p.whole() {
		w.buf = append(w.buf, page[:PageSize]...)
		return
	}
	w.run.bases = binary.AppendVarint(w.run.bases, int64(p.base)-int64(w.base))
	w.run.bases = append(w.run.bases, p.mask)
	w.base = p.base + 1
	for n := range pagePieces {
		if p.mask&(1<<n) != 0 {
			w.buf = append(w.buf, page[n*pieceSize:(n+1)*pieceSize]...)
		}
	}
}

func (w *putWriter) endRun() {
	if r := &w.run; r.pages > 0 {
		head := uint64(r.pages) << 1
		if r.patched {
			head |= 1
		}
		w.entries = binary.AppendUvarint(w.entries, head)
		w.entries = binary.AppendVarint(w.entries, r.from)
		w.entries = append(w.entries, r.bases...)
		r.pages, r.bases = 0, r.bases[:0]
	}
}

// finish gives the frame's buffer away and makes the writer empty.
func (w *putWriter) finish(d *digester) []byte {
	w.endRun()
	sum := d.ofAll(w.sums)
	b := w.buf
	b = append(b, w.entries...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(w.entries)))
	b = append(b, sum[:]...)
	w.buf, w.entries, w.sums, w.next, w.base = nil, w.entries[:0], w.sums[:0], 0, 0
	return b
}

// putReader reads the pages of one PUT frame.
type putReader struct {
	sum     Digest  // of all pages' digests
	pieces  []byte  // what is left of each
	entries numbers // likewise
	pages   uint64  // left of the run
	patched bool
	next    int64
	base    int64
}

func readPut(b []byte) (r putReader, err error) {
	const tail = 4 + len(r.sum)
	if len(b) < tail {
		return r, protocol("PUT of %d bytes", len(b))
	}
	end := len(b) - tail
	entries := int64(binary.LittleEndian.Uint32(b[end:]))
	copy(r.sum[:], b[end+4:])
	if entries == 0 || entries > int64(end) {
		return r, protocol("PUT of %d bytes has %d bytes of entries", len(b), entries)
	}
	at := end - int(entries)
	r.pieces, r.entries = b[:at:at], b[at:end]
	return r, nil
}

// page reads the next page, whose pieces are the frame's own; ok is false at the end, where nothing may be left.
func (r *putReader) page() (p put, ok bool, err error) {
	if r.pages == 0 {
		if len(r.entries) == 0 {
			if len(r.pieces) != 0 {
				return p, false, protocol("PUT has %d bytes too many", len(r.pieces))
			}
			return p, false, nil
		}
		head, from := r.entries.uvarint(), r.entries.varint()
		r.pages, r.patched, r.next = head>>1, head&1 == 1, r.next+from
		if r.entries == nil || r.pages == 0 || from < -math.MaxUint32 || from > math.MaxUint32 {
			return p, false, protocol("PUT has a garbled run")
		}
	}
	r.pages--
	p.mask = allPieces
	if r.patched {
		from := r.entries.varint()
		if len(r.entries) == 0 || from < -math.MaxUint32 || from > math.MaxUint32 {
			return p, false, protocol("PUT has a garbled patch")
		}
		base := r.base + from
		p.mask, r.entries = r.entries[0], r.entries[1:]
		if base < 0 || base > math.MaxUint32 || p.mask == 0 || p.whole() {
			return p, false, protocol("PUT has a patch from slot %d of pieces %#x", base, p.mask)
		}
		p.base, r.base = uint32(base), base+1
	}
	n := bits.OnesCount8(p.mask) * pieceSize
	if r.next < 1 || r.next > math.MaxUint32 || n > len(r.pieces) {
		return p, false, protocol("PUT has for slot %d pieces %#x and %d bytes left", r.next, p.mask, len(r.pieces))
	}
	p.slot, p.pieces, r.pieces = uint32(r.next), r.pieces[:n], r.pieces[n:]
	r.next++
	return p, true, nil
}

// together reads the next page and, if it is whole, those that follow it in its run: n pages, with all their pieces.
func (r *putReader) together() (p put, n int, ok bool, err error) {
	if p, ok, err = r.page(); !ok || err != nil || r.patched {
		return p, 1, ok, err
	}
	for n = 1; r.pages > 0; n++ {
		if _, _, err := r.page(); err != nil {
			return p, n, false, err
		}
	}
	p.pieces = p.pieces[:n*PageSize]
	return p, n, true, nil
}
