package transfer

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// manifest computes the root digest: over every mapped run (space, address, flags, each page's digest) and every file (kind,
// metadata, size, SHA-256), in the order of the stream.
type manifest struct {
	sum hash.Hash
	buf []byte
}

func newManifest() *manifest { return &manifest{sum: sha256.New()} }

// run adds an entry; digests is nil for pages without content.
func (m *manifest) run(s Space, addr uint64, flags uint32, pages int, digests []Digest) {
	b := m.buf[:0]
	b = append(b, 'M', s.Kind)
	b = binary.LittleEndian.AppendUint64(b, s.ID)
	b = binary.LittleEndian.AppendUint64(b, addr)
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(pages))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(digests)))
	for i := range digests {
		b = append(b, digests[i][:]...)
	}
	m.sum.Write(b)
	m.buf = b
}

// file adds a file. kind and meta stand with their lengths, so that no two lists of files look alike.
func (m *manifest) file(kind string, meta []byte, size uint64, sum [32]byte) {
	b := m.buf[:0]
	b = append(b, 'F')
	b = binary.LittleEndian.AppendUint32(b, uint32(len(kind)))
	b = append(b, kind...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(meta)))
	b = append(b, meta...)
	b = binary.LittleEndian.AppendUint64(b, size)
	m.sum.Write(append(b, sum[:]...))
	m.buf = b
}

func (m *manifest) root() (d [32]byte) {
	m.sum.Sum(d[:0])
	return d
}
