package lazy

import (
	"iter"
	"sync"

	"drover/internal/sealed"
)

// Memory is where a Filler takes pages from. Its methods are called from several goroutines at once, from Listen until Close.
type Memory interface {
	// Runs yields the pages of [from, to) of the process that is pid in the tree's own pid namespace, in rising order and
	// without overlaps. It may yield others before, after and beyond, which are passed over. from and to are multiples of
	// image.PageSize. A page of the range that it does not yield is taken for lost, and Fill fails.
	//
	// It is called for every few pages, so that finding from should be quick. The longer the runs, the faster the filling.
	Runs(pid, from, to uint64) iter.Seq[Run]
}

// Known is Config.Memory for memory that is there already.
func Known(m Memory) func() (Memory, error) { return func() (Memory, error) { return m, nil } }

// Run is some pages that follow each other, in the process and where they are: Data, or Sealed, or Zero.
type Run struct {
	Addr uint64
	// Data has a multiple of image.PageSize bytes, which must not change before the next run is asked for.
	Data   []byte
	Sealed Sealed
	Zero   uint64 // so many pages of zeros
}

// Sealed are pages that are read only when they are put in place.
type Sealed struct {
	In    *sealed.Pages
	First uint32
	Pages uint64
}

func (r Run) pages() uint64 { return uint64(len(r.Data))/pageSize + r.Sealed.Pages + r.Zero }

func (r Run) end() uint64 { return r.Addr + r.pages()*pageSize }

// clip is what of a run lies in [from, to); a run of no pages if nothing does.
func (r Run) clip(from, to uint64) Run {
	from, to = max(from, r.Addr), min(to, r.end())
	if from >= to {
		return Run{Addr: from}
	}
	switch skip, n := from-r.Addr, (to-from)/pageSize; {
	case r.Data != nil:
		return Run{Addr: from, Data: r.Data[skip : to-r.Addr]}
	case r.Sealed.Pages > 0:
		return Run{Addr: from, Sealed: Sealed{r.Sealed.In, r.Sealed.First + uint32(skip/pageSize), n}}
	default:
		return Run{Addr: from, Zero: n}
	}
}

// put copies a run, of at most a chunk if it is sealed, to an address in the process of a userfaultfd; see putPages.
func (r Run) put(fd int, addr uint64) (done uint64, err error) {
	switch {
	case r.Data != nil:
		return putPages(fd, addr, r.Data)
	case r.Sealed.Pages > 0:
		buf := opened.Get().(*[chunkBytes]byte)
		defer opened.Put(buf)
		b := buf[:r.Sealed.Pages*pageSize]
		if err := r.Sealed.In.Read(r.Sealed.First, b); err != nil {
			return 0, err
		}
		return putPages(fd, addr, b)
	default:
		return putZeros(fd, addr, r.Zero*pageSize)
	}
}

// opened has buffers for sealed pages.
var opened = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

// each calls f with the runs of exactly [from, to) of a process; errMissing names a page that memory does not have.
func each(m Memory, pid, from, to uint64, f func(Run) error) error {
	for r := range m.Runs(pid, from, to) {
		if r = r.clip(from, to); r.pages() == 0 {
			continue
		}
		if r.Addr != from {
			return errMissing(from)
		}
		if err := f(r); err != nil {
			return err
		}
		from = r.end()
	}
	if from < to {
		return errMissing(from)
	}
	return nil
}
