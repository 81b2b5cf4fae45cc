package lazy

import "iter"

// Memory is where a Filler takes pages from. Its methods are called from several goroutines at once, from Listen until Close.
type Memory interface {
	// Runs yields the pages of [from, to) of the process that is pid in the tree's own pid namespace, in rising order and
	// without overlaps. It may yield others before, after and beyond, which are passed over. from and to are multiples of
	// image.PageSize. A page of the range that it does not yield is taken for lost, and Fill fails.
	//
	// It is called once for every few MiB and for every early fault, so that finding from should be quick. The longer the runs,
	// the faster the filling.
	Runs(pid, from, to uint64) iter.Seq[Run]
}

// Run is some pages that follow each other, in the process and in Data.
type Run struct {
	Addr uint64
	// Data has a multiple of image.PageSize bytes, which must not change before the next run is asked for; nil if Zero is set.
	Data []byte
	Zero uint64 // so many pages of zeros in place of Data
}
