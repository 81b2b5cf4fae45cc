package transfer

import (
	"encoding/binary"
	"math/bits"
)

// put is one page in PUT.
type put struct {
	slot   uint32 // to be written
	base   uint32 // whose content the page has where mask has no bit
	sum    Digest // of the whole page
	mask   uint8  // bit n: the piece at n*pieceSize is among pieces
	pieces []byte
}

func (p put) whole() bool { return p.mask == allPieces }

// appendPut writes the page of put, whose pieces are chosen from page by its mask.
func appendPut(b []byte, p put, page []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, p.slot)
	b = binary.LittleEndian.AppendUint32(b, p.base)
	b = append(b, p.sum[:]...)
	b = append(b, p.mask)
	if p.whole() {
		return append(b, page[:PageSize]...)
	}
	for n := range pagePieces {
		if p.mask&(1<<n) != 0 {
			b = append(b, page[n*pieceSize:(n+1)*pieceSize]...)
		}
	}
	return b
}

// nextPut reads the page that b begins with; its pieces are b's own. A patch of nothing is not allowed, and a whole page
// has no base.
func nextPut(b []byte) (p put, rest []byte, err error) {
	if len(b) < putHead {
		return p, nil, protocol("PUT ends within a page")
	}
	p.slot, p.base, p.mask = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), b[putHead-1]
	copy(p.sum[:], b[8:])
	n := bits.OnesCount8(p.mask) * pieceSize
	b = b[putHead:]
	if n == 0 || n > len(b) || p.whole() && p.base != 0 {
		return p, nil, protocol("PUT has for slot %d, from slot %d, pieces %#x and %d bytes left", p.slot, p.base, p.mask, len(b))
	}
	p.pieces = b[:n]
	return p, b[n:], nil
}
