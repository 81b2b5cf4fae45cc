// Package image reads and writes CRIU's image files and speaks the server's side of its page-server protocol.
//
// Formats are those of CRIU 4.2 (criu/include/magic.h, criu/page-xfer.c, images/*.proto). Everything read is bounded: an
// image or a peer can make a call fail, not make it allocate without limit.
package image

import "fmt"

// PageSize is the only page size drover moves: x86-64's and arm64's usual one.
const PageSize = 4096

// SpaceKind says what sort of address space pages belong to.
type SpaceKind uint8

const (
	Process SpaceKind = 1 // private pages of the process with pid ID, as the tree's own pid namespace numbers it
	Shmem   SpaceKind = 2 // shared anonymous memory with CRIU's id ID; addresses are offsets
)

// Space is one address space of a tree.
type Space struct {
	Kind SpaceKind
	ID   uint64
}

func (s Space) String() string {
	if s.Kind == Shmem {
		return fmt.Sprintf("shmem-%d", s.ID)
	}
	return fmt.Sprintf("%d", s.ID)
}

// Flags of a pagemap entry (criu/include/pagemap.h).
const (
	PEParent  uint32 = 1 << 0 // the page is in the parent image: no data
	PELazy    uint32 = 1 << 1
	PEPresent uint32 = 1 << 2 // data follows
)

// PageSink receives what a dump sends through the page-server protocol, in order. Calls come from one goroutine. An error
// from any of them ends the dump and leaves the tree running.
type PageSink interface {
	// Open begins a space; Run and Hole calls until the next Open belong to it.
	Open(s Space) error
	// Run hands over n pages beginning at addr; data has n*PageSize bytes and is valid only during the call. A run is at most
	// 256 pages long: longer ones are split.
	Run(addr uint64, flags uint32, data []byte) error
	// Hole says that n pages from addr are in the parent image (flags has PEParent) or lazy without data.
	Hole(addr uint64, flags uint32, n uint64) error
	// Close is called once, when all has been received; its error is what the dump fails with.
	Close() error
}
