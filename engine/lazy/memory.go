package lazy

import "iter"

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

// Run is some pages that follow each other, in the process and in Data.
type Run struct {
	Addr uint64
	// Data has a multiple of image.PageSize bytes, which must not change before the next run is asked for; nil if Zero is set.
	Data []byte
	Zero uint64 // so many pages of zeros in place of Data
}

func (r Run) pages() uint64 {
	if r.Data != nil {
		return uint64(len(r.Data)) / pageSize
	}
	return r.Zero
}

func (r Run) end() uint64 { return r.Addr + r.pages()*pageSize }

// clip is what of a run lies in [from, to); a run of no pages if nothing does.
func (r Run) clip(from, to uint64) Run {
	from, to = max(from, r.Addr), min(to, r.end())
	if from >= to {
		return Run{Addr: from}
	}
	if r.Data != nil {
		return Run{Addr: from, Data: r.Data[from-r.Addr : to-r.Addr]}
	}
	return Run{Addr: from, Zero: (to - from) / pageSize}
}

// put copies a run to an address in the process of a userfaultfd; see putPages.
func (r Run) put(fd int, addr uint64) (done uint64, err error) {
	if r.Data != nil {
		return putPages(fd, addr, r.Data)
	}
	return putZeros(fd, addr, r.Zero*pageSize)
}

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
