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
)

// pieceSums is what a sender remembers of a page's content: a hash of each piece, under the stream's own seed, so that no
// program can aim at collisions. Two pieces of one hash are taken for equal only until the target has compared the digest of
// the page that it made.
type pieceSums [pagePieces]pieceSum

// pieceSum is 48 bits: one change in 2^48 is missed, and then fails the stream, so that a page costs no more than 48 bytes.
type pieceSum [6]byte

func sumPieces(seed maphash.Seed, page []byte) (sums pieceSums) {
	for n := range sums {
		h := maphash.Bytes(seed, page[n*pieceSize:(n+1)*pieceSize])
		binary.LittleEndian.PutUint32(sums[n][:], uint32(h))
		binary.LittleEndian.PutUint16(sums[n][4:], uint16(h>>32))
	}
	return sums
}

// differ says which pieces of two pages differ: bit n is the one at n*pieceSize.
func (s *pieceSums) differ(other *pieceSums) (mask uint8) {
	for n := range s {
		if s[n] != other[n] {
			mask |= 1 << n
		}
	}
	return mask
}
