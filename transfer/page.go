package transfer

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"unsafe"
)

const (
	// PageSize is the only page size drover moves.
	PageSize = 4096
	// MaxRun is how many pages one call and one map entry may cover.
	MaxRun = 256
)

// Space names one address space of a tree: a process's or a shared memory's. The numbers mean something to the caller only.
type Space struct {
	Kind uint8
	ID   uint64
}

func (s Space) String() string { return fmt.Sprintf("%d/%d", s.Kind, s.ID) }

// Digest tells pages of one stream apart: 128 bits of GMAC (NIST SP 800-38D) under a key that the sender draws at random for
// the stream. A program cannot aim at two pages of one digest, because it cannot know the key; for pages that do not depend
// on it, the chance that two agree is below 2^-119 a pair (GHASH is almost universal: blocks of a page / 2^128). One nonce
// serves all pages: what a second tag under it gives away is known only to the two workers, which hold the pages themselves.
// It is a third of SHA-256's cost, which every page of a tree pays in the freeze.
type Digest [16]byte

// zeros is a run of zero pages, longer than any other. A zero page is slot 0 in every store and is never hashed.
var (
	zeros      [MaxRun * PageSize]byte
	zeroDigest Digest
)

// keySize is the size of a stream's digest key, for AES-128.
const keySize = 16

// digester computes pages' digests. It may be used by several goroutines.
type digester struct {
	mac   cipher.AEAD
	nonce []byte
}

// newKey draws a digest key.
func newKey() []byte {
	key := make([]byte, keySize)
	rand.Read(key) // never fails (crypto/rand)
	return key
}

func newDigester(key []byte) (*digester, error) {
	if len(key) != keySize {
		return nil, protocol("a digest key of %d bytes", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	mac, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &digester{mac, make([]byte, mac.NonceSize())}, nil
}

// of is the digest of a page: the tag over it as data that is authenticated and not encrypted.
func (d *digester) of(page []byte) (sum Digest) {
	d.mac.Seal(sum[:0], d.nonce, nil, page)
	return sum
}

// ofAll is the digest of pages' digests: with it a batch of pages needs no digest for each of them on the wire.
func (d *digester) ofAll(sums []Digest) Digest {
	return d.of(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(sums))), len(sums)*len(Digest{})))
}

// page is of without the cost for a zero page.
func (d *digester) page(page []byte) Digest {
	if bytes.Equal(page, zeros[:PageSize]) {
		return zeroDigest
	}
	return d.of(page)
}
