package lazy

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"drover/engine/image"
	"drover/internal/errs"
)

const (
	// fillers are the goroutines that put pages in place while the tree is held. More do not help: they share a process's page tables
	// and the memory's bandwidth. When it runs there is one.
	fillers = 2
	// politeness is the nice value (sched(7)) of the one.
	politeness = 10
)

// Stats are what a Fill has done.
type Stats struct {
	Bytes  uint64        `json:"bytes"`  // put in place, those of zeros and of faults included
	Zeros  uint64        `json:"zeros"`  // bytes of them that are zeros
	Faults uint64        `json:"faults"` // pages that the tree, or its rebuilding, asked for before they were in place
	Took   time.Duration `json:"took_ns"`
}

// Fill waits for the restore, vouches for its memory, and returns when every page that the images leave out is in place and no
// userfaultfd is left. The restore may be committed, and the tree run, once the engine has the Filler's word, long before Fill
// returns. It is called once. If it fails before that word the restore must be aborted; afterwards the tree is killed, and is dead when
// Fill returns. progress, if not nil, is told the bytes done so far and in all, from several goroutines, first when the engine has the word.
func (f *Filler) Fill(ctx context.Context, progress func(done, all uint64)) (Stats, error) {
	p := &pass{f: f, progress: progress}
	err := f.await(ctx, func() bool { return f.spaces != nil })
	if err == nil {
		err = f.lacksNone() // while CRIU rebuilds the processes
	}
	if err == nil {
		err = f.await(ctx, func() bool { return f.missing == 0 && f.rebuilt })
	}
	begin := time.Now()
	if err == nil {
		err = p.prepare(ctx)
	}
	if err == nil {
		err = f.vouch(ctx)
	}
	if err == nil {
		p.vouched()
		err = f.awaitRelease(ctx)
		begin = time.Now() // to wait for the verdict is not to fill
		f.mu.Lock()
		f.due = true
		f.mu.Unlock()
	}
	for err == nil {
		if err = p.run(ctx); err == nil && f.idle() {
			break
		}
	}
	if err == nil {
		err = f.finish(ctx)
	}
	if err != nil {
		return Stats{}, errs.New(errs.Failed, "fill the restored memory: %w", f.reason(err))
	}
	stats := Stats{Bytes: p.all, Zeros: p.zeros.Load(), Took: time.Since(begin)}
	for _, s := range f.list() {
		<-s.left
		stats.Faults += s.early // nobody adds to it any more
	}
	return stats, nil
}

// lacksNone makes sure that memory has every page.
func (f *Filler) lacksNone() error {
	for _, s := range f.list() {
		s.mu.Lock()
		all := append(wants(nil), s.wants...)
		s.mu.Unlock()
		for _, w := range all {
			if err := each(f.memory, s.pid, w.from, w.from+w.end-w.addr, func(Run) error { return nil }); err != nil {
				return fmt.Errorf("process %d: %w", s.pid, err)
			}
		}
	}
	return nil
}

// list is a copy of what there is to fill.
func (f *Filler) list() []*space {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*space(nil), f.spaces...)
}

// Stands says that the filling has stood still since Stands was called last, or since the release: memory of the tree is wanted, and not
// one page has come to its place. One goroutine calls it.
func (f *Filler) Stands() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	placed := f.placed.Load()
	stands := f.due && placed == f.stood && !f.nothingWanted()
	f.stood = placed
	return stands
}

// idle says whether nothing is wanted any more. A child that is just being forked has all that its parent has.
func (f *Filler) idle() bool {
	f.mu.Lock() // a child that comes is adopted before or after all have been looked at
	defer f.mu.Unlock()
	return f.nothingWanted()
}

// nothingWanted is idle for who holds mu.
func (f *Filler) nothingWanted() bool {
	for _, s := range f.spaces {
		if !s.idle() {
			return false
		}
	}
	return true
}

// finish has the engine let go of the userfaultfds, and then closes them here. Until then who asks for a page that was never written
// to is answered; afterwards it is the kernel's own zeros again.
func (f *Filler) finish(ctx context.Context) error {
	if err := f.insist(ctx, func() error {
		err := f.handRest()
		if err == nil {
			err = f.say(packetFilled)
		}
		return err
	}); err != nil {
		return err
	}
	f.mu.Lock()
	for f.engine != nil && f.err == nil {
		come := f.come
		f.mu.Unlock()
		<-come
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.filled = true
	all := f.spaces
	f.mu.Unlock() // who is just serving a space may want it
	for _, s := range all {
		s.close()
	}
	f.mu.Lock()
	return nil
}

// pass is one Fill at work.
type pass struct {
	f        *Filler
	all      uint64
	done     atomic.Uint64
	zeros    atomic.Uint64
	tells    bool
	progress func(done, all uint64)
}

// prepare puts those pages in place that a fork treats in a way of its own: a child's are told from the parent's by nothing that a
// userfaultfd says.
func (p *pass) prepare(ctx context.Context) error {
	for _, s := range p.f.list() {
		apart, err := image.ForkAdvised(within(p.f.dir, "."), s.pid)
		if err != nil {
			return err
		}
		s.mu.Lock()
		p.all += s.wants.bytes()
		s.mu.Unlock()
		for _, r := range apart {
			if err := p.within(ctx, s, r.Start, r.End); err != nil {
				return err
			}
		}
	}
	return nil
}

// run puts in place what is wanted of those processes that there are, and gives back what they have once the tree runs: before, memory is
// cheaper than time.
func (p *pass) run(ctx context.Context) error {
	all, done := p.f.list(), make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(done)
		if !p.f.config.Eager {
			runtime.LockOSThread() // for good: the thread ends with this goroutine, since it stays as it is made here
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, politeness)
		}
		return p.each(ctx, all)
	})
	for range fillers - 1 {
		g.Go(func() error {
			if p.f.config.Eager {
				return p.each(ctx, all)
			}
			p.giveBack(done)
			return nil
		})
	}
	return g.Wait()
}

// each puts in place what is wanted of processes, one after the other.
func (p *pass) each(ctx context.Context, all []*space) error {
	for _, s := range all {
		if err := p.within(ctx, s, 0, math.MaxUint64); err != nil {
			return err
		}
	}
	return nil
}

// awaitRelease waits until the tree has been released, if it is to be, or there is nobody who would.
func (f *Filler) awaitRelease(ctx context.Context) error {
	for {
		f.mu.Lock()
		come, err, over := f.come, f.err, f.config.Eager || f.released || f.engine == nil
		f.mu.Unlock()
		if err != nil || over {
			return err
		}
		select {
		case <-come:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// giveBackEvery is how often a helper looks for what can be given back.
const giveBackEvery = 5 * time.Millisecond

// giveBack gives back what is in place, if memory is scarce, until done is closed.
func (p *pass) giveBack(done <-chan struct{}) {
	spares, ok := p.f.memory.(Sparing)
	if !ok {
		return
	}
	for t := time.NewTicker(giveBackEvery); ; {
		select {
		case <-t.C:
			if scarce := p.f.config.Scarce; scarce == nil || scarce(p.all-min(p.done.Load(), p.all)) {
				spares.GiveBack()
			}
		case <-done:
			t.Stop()
			return
		}
	}
}

// within puts in place what is wanted in [start, end).
func (p *pass) within(ctx context.Context, s *space, start, end uint64) error {
	for {
		if more, err := p.chunk(ctx, s, start, end); err != nil || !more {
			return err
		}
	}
}

// chunk puts one chunk in place, and says whether there was one.
func (p *pass) chunk(ctx context.Context, s *space, start, end uint64) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	p.f.mu.Lock()
	if err = p.f.err; err == nil {
		_ = p.f.handRest() // else before the end
	}
	p.f.mu.Unlock()
	if err != nil {
		return false, err
	}
	n, zeros, err := s.put(ctx, p.f.memory, start, end)
	if err != nil {
		return false, fmt.Errorf("process %d: %w", s.pid, err)
	}
	if n == 0 {
		return false, nil
	}
	p.f.placed.Add(n)
	p.zeros.Add(zeros)
	p.tell(p.done.Add(n))
	return true, nil
}

// vouched begins to tell.
func (p *pass) vouched() {
	p.tells = true
	p.tell(p.done.Load())
}

func (p *pass) tell(done uint64) {
	if p.tells && p.progress != nil {
		p.progress(min(done, p.all), p.all) // children come in addition
	}
}
