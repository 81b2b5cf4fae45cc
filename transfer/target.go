package transfer

import (
	"io"

	"drover/internal/migration"
)

// Target is what a Receiver fills. Its methods and those of what it returns are called by one goroutine, in the stream's
// order. Every error ends the stream and is told to the source.
type Target interface {
	// Limits is called once, first.
	Limits() Limits
	// File begins a file. Its Close is called once: after all content has been written and its digest been checked, or after
	// a failure, which Receive then returns. One file at a time is open.
	File(kind string, meta []byte) (io.WriteCloser, error)
	// Open begins a space; the one before has been closed. A space is opened once.
	Open(s Space) (PageWriter, error)
}

// PageWriter takes one space's pages, at ascending addresses.
type PageWriter interface {
	// Entry hands over a run of at most MaxRun pages; content, put together, is what it holds. The slice is valid only during the call.
	Entry(addr uint64, flags uint32, content []Content) error
	// Hole hands over a run without content (Sender.MapAbsent).
	Hole(addr uint64, flags uint32, n uint64) error
	// Close is called once, after the space's last run, or after a failure, which Receive then returns.
	Close() error
}

// Limits bound what a source may send. A zero field takes the default beside it, except those that say otherwise.
type Limits struct {
	Migration migration.ID    // whose stream is expected; "" takes any
	Epoch     migration.Epoch // likewise, with Migration ""
	Slots     uint32          // pages held while the source runs; 2^20 (4 GiB)
	Pages     uint64          // mapped in the final pass, over all spaces; 2^24 (64 GiB)
	Spaces    int             // 65,536
	Files     int             // 65,536
	FileBytes uint64          // over all files; 2^40
	Room      Room            // for the slots; the zero value is memory for all
}

func (l Limits) filled() Limits {
	if l.Slots == 0 {
		l.Slots = 1 << 20
	}
	if l.Pages == 0 {
		l.Pages = 1 << 24
	}
	if l.Spaces == 0 {
		l.Spaces = 1 << 16
	}
	if l.Files == 0 {
		l.Files = 1 << 16
	}
	if l.FileBytes == 0 {
		l.FileBytes = 1 << 40
	}
	return l
}

// Result is what a stream has brought.
type Result struct {
	Root      [32]byte // the same on both sides
	Rounds    int
	Pages     uint64 // mapped
	Slots     int    // of the store, used
	Spilled   int    // of these, on a disk
	Spaces    int
	Files     int
	FileBytes uint64
	WireBytes uint64
}
