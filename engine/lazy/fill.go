package lazy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"drover/engine/image"
	"drover/internal/errs"
)

const (
	fillers    = 2       // goroutines: more do not help, since they share the process's page tables and the memory's bandwidth
	partBytes  = 8 << 20 // of one process, filled by one goroutine before it takes the next
	chunkBytes = 1 << 20 // in one call to the kernel: what an abort waits for
)

// Stats are what a Fill has done.
type Stats struct {
	Bytes  uint64        `json:"bytes"`  // put in place, those of zeros and of early faults included
	Zeros  uint64        `json:"zeros"`  // bytes of them that are zeros
	Faults uint64        `json:"faults"` // pages that the rebuilding asked for before
	Took   time.Duration `json:"took_ns"`
}

// Fill puts every page in place that the images leave out and tells the engine so; then no userfaultfd is left and the restore
// may be committed. It is called once, while the restore is held. If it fails the restore must be aborted: nothing else can come
// of it. progress, if not nil, is told the bytes done so far and in all, from several goroutines.
func (f *Filler) Fill(ctx context.Context, progress func(done, all uint64)) (Stats, error) {
	begin := time.Now()
	spaces, err := f.arrived(ctx)
	if err != nil {
		return Stats{}, errs.New(errs.Failed, "fill the restored memory: %w", err)
	}
	p := &pass{f: f, progress: progress, parts: split(spaces)}
	for _, part := range p.parts {
		p.all += part.end - part.start
	}
	if err = p.run(ctx); err == nil {
		letGo(spaces)
		err = f.tell()
	}
	if err != nil {
		return Stats{}, errs.New(errs.Failed, "fill the restored memory: %w", f.reason(err))
	}
	stats := Stats{Bytes: p.all, Zeros: p.zeros.Load(), Took: time.Since(begin)}
	for _, s := range spaces {
		stats.Faults += uint64(len(s.faulted)) // nobody adds to it any more
	}
	return stats, nil
}

// letGo closes all userfaultfds. Nobody waits for them: a page that was never written to is the kernel's own zeros again.
func letGo(spaces []*space) {
	for _, s := range spaces {
		s.close()
		<-s.left
	}
}

// tell says to the engine that all is in place, unless something went wrong meanwhile.
func (f *Filler) tell() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	if _, err := f.engine.Write([]byte{packetFilled}); err != nil {
		return fmt.Errorf("tell the engine: %w", err)
	}
	f.filled = true
	return nil
}

// part is a piece of one process's memory, all of it wanted.
type part struct {
	s          *space
	uffd       *os.File
	start, end uint64
}

// split cuts what is wanted into parts, process by process.
func split(spaces []*space) (parts []part) {
	for _, s := range spaces {
		uffd := s.descriptor()
		for _, e := range s.wanted {
			for at := e.Addr; at < e.End(); at += partBytes {
				parts = append(parts, part{s, uffd, at, min(at+partBytes, e.End())})
			}
		}
	}
	return parts
}

// pass is one Fill at work.
type pass struct {
	f        *Filler
	parts    []part
	next     atomic.Int64
	all      uint64
	done     atomic.Uint64
	zeros    atomic.Uint64
	progress func(done, all uint64)
}

func (p *pass) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range fillers {
		g.Go(func() error {
			for {
				i := int(p.next.Add(1)) - 1
				if i >= len(p.parts) {
					return nil
				}
				if err := p.fill(ctx, p.parts[i]); err != nil {
					return fmt.Errorf("process %d: %w", p.parts[i].s.pid, err)
				}
			}
		})
	}
	return g.Wait()
}

// fill puts one part in place, run by run; what no run has is missing.
func (p *pass) fill(ctx context.Context, part part) error {
	return control(part.uffd, func(fd int) error {
		at := part.start
		for r := range p.f.memory.Runs(part.s.pid, part.start, part.end) {
			if r = r.clip(at, part.end); r.pages() == 0 {
				continue
			}
			if r.Addr != at {
				return errMissing(at)
			}
			for at < r.end() {
				chunk := r.clip(at, at+chunkBytes)
				if err := part.s.insist(ctx, fd, chunk); err != nil {
					return err
				}
				p.count(chunk)
				at = chunk.end()
			}
		}
		if at < part.end {
			return errMissing(at)
		}
		return nil
	})
}

func (p *pass) count(chunk Run) {
	n := chunk.pages() * image.PageSize
	if chunk.Data == nil {
		p.zeros.Add(n)
	}
	done := p.done.Add(n)
	if p.progress != nil {
		p.progress(done, p.all)
	}
}

// insist puts a chunk in place whatever is in the way, as far as that may be.
func (s *space) insist(ctx context.Context, fd int, chunk Run) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	most := chunk.pages() // halves where a chunk reaches over the end of a mapping, which the kernel does not take
	for at := chunk.Addr; at < chunk.end(); {
		try := chunk.clip(at, at+most*image.PageSize)
		done, err := try.put(fd)
		at += done
		switch {
		case err == nil:
			most = chunk.pages()
		case errors.Is(err, unix.ENOENT) && try.pages() > 1:
			most = try.pages() / 2
		case errors.Is(err, unix.EEXIST) && s.early(at):
			at += image.PageSize
		case errors.Is(err, unix.EAGAIN): // an event waits to be read, after which all fails
			if err := pause(ctx); err != nil {
				return err
			}
		default:
			return explain(err, at)
		}
	}
	return nil
}

// early says whether the page is there because of an early fault.
func (s *space) early(addr uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faulted[addr]
}

func pause(ctx context.Context) error {
	t := time.NewTimer(100 * time.Microsecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r Run) pages() uint64 {
	if r.Data != nil {
		return uint64(len(r.Data)) / image.PageSize
	}
	return r.Zero
}

func (r Run) end() uint64 { return r.Addr + r.pages()*image.PageSize }

// clip is what of a run lies in [from, to); a run of no pages if nothing does.
func (r Run) clip(from, to uint64) Run {
	from, to = max(from, r.Addr), min(to, r.end())
	if from >= to {
		return Run{Addr: from}
	}
	if r.Data != nil {
		return Run{Addr: from, Data: r.Data[from-r.Addr : to-r.Addr]}
	}
	return Run{Addr: from, Zero: (to - from) / image.PageSize}
}

// put copies a run into the process of a userfaultfd; see putPages.
func (r Run) put(fd int) (done uint64, err error) {
	if r.Data != nil {
		return putPages(fd, r.Addr, r.Data)
	}
	return putZeros(fd, r.Addr, r.Zero*image.PageSize)
}
