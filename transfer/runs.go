package transfer

import "encoding/binary"

// Sorts of runs in a map entry.
const (
	runSlots  = 0
	runZeros  = 1
	runAbsent = 2
)

// entry is one run of pages in an address space, as MAP carries it.
type entry struct {
	addr  uint64
	flags uint32
	pages int
	slots []uint32 // of each page, 0 for a zero page; nil: no content
}

// appendEntry writes an entry. last is the slot after the last run's, kept from entry to entry within a frame.
func appendEntry(b []byte, e entry, last *uint32) []byte {
	b = binary.AppendUvarint(b, e.addr)
	b = binary.AppendUvarint(b, uint64(e.flags))
	b = binary.AppendUvarint(b, uint64(e.pages))
	if e.slots == nil {
		return binary.AppendUvarint(b, uint64(e.pages)<<2|runAbsent)
	}
	for i := 0; i < len(e.slots); {
		first, n := e.slots[i], 1
		for i+n < len(e.slots) && (first == 0 && e.slots[i+n] == 0 || first != 0 && e.slots[i+n] == first+uint32(n)) {
			n++
		}
		i += n
		if first == 0 {
			b = binary.AppendUvarint(b, uint64(n)<<2|runZeros)
			continue
		}
		b = binary.AppendUvarint(b, uint64(n)<<2|runSlots)
		b = binary.AppendVarint(b, int64(first)-int64(*last))
		*last = first + uint32(n)
	}
	return b
}

// entryReader reads the entries of one MAP frame.
type entryReader struct {
	b    numbers
	last uint32
	buf  [MaxRun]uint32
}

// next reads an entry, whose slots are valid until the next call; ok is false at the end. Slots are within limit.
func (r *entryReader) next(limit uint32) (e entry, ok bool, err error) {
	if len(r.b) == 0 {
		return e, false, nil
	}
	addr, flags, pages := r.b.uvarint(), r.b.uvarint(), r.b.uvarint()
	switch {
	case r.b == nil || flags > 1<<32-1:
		return e, false, protocol("a map entry is garbled")
	case pages == 0 || pages > MaxRun:
		return e, false, protocol("a map entry of %d pages", pages)
	case addr%PageSize != 0 || addr+pages*PageSize < addr:
		return e, false, protocol("a map entry at %#x", addr)
	}
	e = entry{addr: addr, flags: uint32(flags), pages: int(pages), slots: r.buf[:0]}
	for len(e.slots) < e.pages {
		head := r.b.uvarint()
		n := head >> 2
		if r.b == nil || n == 0 || n > uint64(e.pages-len(e.slots)) {
			return e, false, protocol("a map entry's runs are garbled")
		}
		switch head & 3 {
		case runAbsent:
			if int(n) != e.pages {
				return e, false, protocol("a map entry mixes pages with and without content")
			}
			e.slots = nil
			return e, true, nil
		case runZeros:
			for range n {
				e.slots = append(e.slots, 0)
			}
		case runSlots:
			first := int64(r.last) + r.b.varint()
			if r.b == nil || first < 1 || first > int64(limit) || first+int64(n)-1 > int64(limit) {
				return e, false, protocol("a map entry names a slot that is none")
			}
			for i := range uint32(n) {
				e.slots = append(e.slots, uint32(first)+i)
			}
			r.last = uint32(first) + uint32(n)
		default:
			return e, false, protocol("a map entry has a run of an unknown sort")
		}
	}
	return e, true, nil
}

// numbers are varints that are read one after the other (encoding/binary): nil once one was asked for that is not there.
type numbers []byte

func (b *numbers) uvarint() uint64 {
	v, n := binary.Uvarint(*b)
	b.skip(n)
	return v
}

func (b *numbers) varint() int64 {
	v, n := binary.Varint(*b)
	b.skip(n)
	return v
}

func (b *numbers) skip(n int) {
	if n <= 0 {
		*b = nil
		return
	}
	*b = (*b)[n:]
}
