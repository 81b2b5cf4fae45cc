package track

import (
	"golang.org/x/sys/unix"

	"drover/engine/image"
)

// How much is read at once: many small ranges cost one call.
const (
	readPages  = 1024
	readRanges = 512 // below the kernel's IOV_MAX of 1024
)

// reader reads scattered ranges of a process's memory and emits them, many a call. Its buffer may serve several, one after
// the other.
type reader struct {
	process *process
	space   image.Space
	emit    func(image.Space, uint64, []byte) error
	emitted *uint64 // counts pages
	lost    func(addr uint64)
	failed  bool // emit did

	buf    []byte // readPages long
	filled int
	ranges []unix.RemoteIovec
}

// begin turns to a process; what was added and not flushed is forgotten.
func (r *reader) begin(p *process, sp image.Space, emitted *uint64) {
	r.process, r.space, r.emitted = p, sp, emitted
	r.ranges, r.filled = r.ranges[:0], 0
}

// add takes a range; what is read is emitted now or by flush. Pages that cannot be read go to lost.
func (r *reader) add(start, end uint64) error {
	for start < end {
		n := min(end-start, maxRun*image.PageSize, uint64(len(r.buf)-r.filled))
		r.ranges = append(r.ranges, unix.RemoteIovec{Base: uintptr(start), Len: int(n)})
		r.filled += int(n)
		start += n
		if r.filled == len(r.buf) || len(r.ranges) == readRanges {
			if err := r.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) addAll(ranges []span) error {
	for _, s := range ranges {
		if err := r.add(s.start, s.end); err != nil {
			return err
		}
	}
	return nil
}

// flush reads and emits what has been added.
func (r *reader) flush() error {
	if len(r.ranges) == 0 {
		return nil
	}
	ranges, b := r.ranges, r.buf[:r.filled]
	r.ranges, r.filled = r.ranges[:0], 0
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	n, err := unix.ProcessVMReadv(r.process.pid, local, ranges, 0)
	whole := err == nil && n == len(b)
	for _, one := range ranges {
		part := b[:one.Len]
		b = b[one.Len:]
		if whole {
			if err := r.hand(uint64(one.Base), part); err != nil {
				return err
			}
		} else if err := r.pieces(uint64(one.Base), part); err != nil {
			return err
		}
	}
	return nil
}

// pieces reads a range of which a part may have been unmapped, or may not be read in the usual way.
func (r *reader) pieces(addr uint64, b []byte) error {
	there := r.process.read(addr, b)
	from := 0
	for i := 0; i <= len(b); i += image.PageSize {
		if i < len(b) && there(i/image.PageSize) {
			continue
		}
		if from < i {
			if err := r.hand(addr+uint64(from), b[from:i]); err != nil {
				return err
			}
		}
		if i < len(b) {
			r.lost(addr + uint64(i))
		}
		from = i + image.PageSize
	}
	return nil
}

func (r *reader) hand(addr uint64, b []byte) error {
	*r.emitted += uint64(len(b) / image.PageSize)
	err := r.emit(r.space, addr, b)
	r.failed = err != nil
	return err
}
