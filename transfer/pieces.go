package transfer

import (
	"encoding/binary"
	"hash/maphash"
)

const (
	// pieceSize is what a page is compared and patched by. Smaller ones save more and cost more to remember (docs/adr/0008).
	pieceSize  = 512
	pagePieces = PageSize / pieceSize
	// patchMost is how many pieces of a page may differ for it to be patched; with more it is sent whole.
	patchMost = 6
	// sumsSize is what a sender remembers of a page: a 64-bit hash of each piece.
	sumsSize = pagePieces * 8
)

// pieceSums is what a sender knows of the pages in slots, which it does not keep: a hash of each piece. Two pieces of one
// hash are taken for equal only until the target has compared the patched page's digest, which no chance makes equal.
// It is memory outside Go's heap, that the kernel fills in as slots are used; it is used by one goroutine.
type pieceSums struct {
	seed maphash.Seed // this stream's own: a program cannot aim at collisions
	sums []byte       // slot n at n*sumsSize; slot 0 is the zero page
}

// newPieceSums makes room for slots 1 to slots; close gives it back.
func newPieceSums(slots uint32) (*pieceSums, error) {
	sums, err := reserve((int(slots) + 1) * sumsSize)
	if err != nil {
		return nil, err
	}
	p := &pieceSums{maphash.MakeSeed(), sums}
	p.note(0, 0, zeros[:PageSize])
	return p, nil
}

// note remembers the page that will stand in slot and says which of its pieces differ from those of the page in base: bit n
// is the piece at n*pieceSize.
func (p *pieceSums) note(slot, base uint32, page []byte) (differ uint8) {
	to, from := p.of(slot), p.of(base)
	for n := range pagePieces {
		sum := maphash.Bytes(p.seed, page[n*pieceSize:(n+1)*pieceSize])
		if sum != binary.LittleEndian.Uint64(from[n*8:]) {
			differ |= 1 << n
		}
		binary.LittleEndian.PutUint64(to[n*8:], sum)
	}
	return differ
}

func (p *pieceSums) of(slot uint32) []byte { return p.sums[int(slot)*sumsSize:][:sumsSize] }

// close gives the memory back, once.
func (p *pieceSums) close() error { return unreserve(p.sums) }
