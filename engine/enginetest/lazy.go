package enginetest

import (
	"context"
	"errors"
	"iter"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/lazy"
	"drover/engine/track"
	"drover/internal/errs"
	"drover/internal/migration"
)

// forLazy is a case for engines that can leave memory to drover. Others must refuse, and change nothing.
func forLazy(test func(*bench)) func(*bench) {
	return func(b *bench) {
		f, err := b.e.Probe(b.ctx())
		if err != nil {
			b.Fatal(err)
		}
		if f.LazyPages {
			test(b)
			return
		}
		if _, err := b.lazyDump(migration.Dead); !errors.Is(err, engine.ErrNotLazy) {
			b.Errorf("a lazy dump by an engine that has none: %v", err)
		}
		b.wantRunning()
		b.dumpDead()
		req := b.s.Into(b.images)
		req.Lazy = true
		if _, err := b.e.Restore(b.ctx(), req); !errors.Is(err, engine.ErrNotLazy) {
			b.Errorf("a lazy restore by an engine that has none: %v", err)
		}
		b.wantGone()
	}
}

// carried is a tree's memory as a migration carries it.
type carried struct {
	runs map[uint64][]lazy.Run
	lose atomic.Bool // lose the last page of every process
}

func (c *carried) Runs(pid, from, to uint64) iter.Seq[lazy.Run] {
	return func(yield func(lazy.Run) bool) {
		runs := c.runs[pid]
		if c.lose.Load() {
			runs = slices.Clone(runs)
			last := &runs[len(runs)-1]
			last.Data = last.Data[:len(last.Data)-image.PageSize]
		}
		for _, r := range runs {
			if r.Addr < to && r.Addr+uint64(len(r.Data)) > from && !yield(r) {
				return
			}
		}
	}
}

func (b *bench) lazyDump(final migration.FinalState) (engine.Hold, error) {
	req := b.request(final)
	req.Lazy = true
	return b.e.Dump(b.ctx(), req)
}

// mustLazyDump also reads what the images leave out, from the held tree.
func (b *bench) mustLazyDump(final migration.FinalState) (engine.Hold, *carried) {
	b.Helper()
	h, err := b.lazyDump(final)
	if err != nil {
		b.Fatalf("lazy dump: %v", err)
	}
	return h, b.carry()
}

func (b *bench) carry() *carried {
	b.Helper()
	still, err := track.OpenStill(b.s.Tree())
	if err != nil {
		b.Fatal(err)
	}
	defer still.Close()
	c := &carried{runs: map[uint64][]lazy.Run{}}
	for pid := range b.s.Look(b) {
		wanted, err := lazy.Wanted(b.images.Name(), uint64(pid))
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range wanted {
			r := lazy.Run{Addr: e.Addr, Data: make([]byte, e.Pages*image.PageSize)}
			if err := still.Read(uint64(pid), r.Addr, r.Data); err != nil {
				b.Fatal(err)
			}
			c.runs[uint64(pid)] = append(c.runs[uint64(pid)], r)
		}
	}
	return c
}

// lazyDead takes the tree away and leaves its images and its memory.
func (b *bench) lazyDead() *carried {
	b.Helper()
	h, memory := b.mustLazyDump(migration.Dead)
	b.commit(h)
	b.wantGone()
	return memory
}

// lazyRestore rebuilds the tree up to the hold, with a filler that has not filled yet.
func (b *bench) lazyRestore(final migration.FinalState, memory lazy.Memory) (engine.Hold, *lazy.Filler) {
	b.Helper()
	f, err := lazy.Listen(b.images.Name(), lazy.Config{Memory: lazy.Known(memory), Eager: true, Kill: func() error { return b.e.Kill(context.Background(), b.s.Tree()) }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(f.Close)
	req := b.s.Into(b.images)
	req.Lazy, req.FinalState = true, final
	h, err := b.e.Restore(b.ctx(), req)
	if err != nil {
		b.Fatalf("lazy restore: %v", err)
	}
	b.s.Restored(h.Pid())
	return h, f
}

func (b *bench) fill(f *lazy.Filler) lazy.Stats {
	b.Helper()
	stats, err := f.Fill(b.ctx(), nil)
	if err != nil {
		b.Fatalf("fill: %v", err)
	}
	return stats
}

func lazyDumpLeavesMemory(b *bench) {
	h, memory := b.mustLazyDump(migration.Dead)
	b.wantStill()
	if err := image.CheckLazy(b.images.Name()); err != nil {
		b.Error(err)
	}
	if err := image.Check(b.images.Name()); !errors.Is(err, engine.ErrBadImage) {
		b.Errorf("images without their memory are said to be whole: %v", err)
	}
	if len(memory.runs) != len(b.s.Look(b)) {
		b.Errorf("memory of %d processes of %d was left out", len(memory.runs), len(b.s.Look(b)))
	}
	b.abort(h)
	b.wantRunning()
	if _, err := h.Commit(b.ctx()); !errors.Is(err, engine.ErrDecided) {
		b.Errorf("commit after abort: %v", err)
	}
}

func lazyDumpStates(b *bench) {
	child := b.child()
	b.s.Stop(b, child)
	h, _ := b.mustLazyDump(migration.Running)
	b.commit(h)
	b.wantRunning(child)
	b.images = b.newImages()
	h, _ = b.mustLazyDump(migration.Stopped)
	b.commit(h)
	b.wantStopped()
	if err := b.e.Continue(b.ctx(), b.s.StoppedBy(b.images.Name()), []int{child}); err != nil {
		b.Fatal(err)
	}
	b.wantRunning(child)
	b.s.Resume(b, child)
	b.wantRunning()
}

func lazyDumpNonsense(b *bench) {
	_, client := b.socketPair()
	for name, spoil := range map[string]func(*engine.DumpRequest){
		"a socket for the pages": func(r *engine.DumpRequest) { r.Pages = client },
		"a parent":               func(r *engine.DumpRequest) { r.Parent = "../before" },
	} {
		req := b.request(migration.Dead)
		req.Lazy = true
		spoil(&req)
		if _, err := b.e.Dump(b.ctx(), req); errs.KindOf(err) != errs.Invalid {
			b.Errorf("%s: %v", name, err)
		}
	}
	b.wantRunning()
}

func lazyDumpAtFreeze(b *bench) {
	no := errors.New("no")
	req := b.request(migration.Dead)
	req.Lazy = true
	req.AtFreeze = func(context.Context) error { b.wantStill(); return no }
	if _, err := b.e.Dump(b.ctx(), req); !errors.Is(err, no) {
		b.Errorf("got %v", err)
	}
	b.wantRunning()
}

func lazyDumpLost(b *bench) {
	h, _ := b.mustLazyDump(migration.Dead)
	b.g.LoseEngine(b, h)
	<-h.Lost()
	b.wantStill()
	if _, err := h.Commit(b.ctx()); !errors.Is(err, engine.ErrLost) {
		b.Errorf("commit: %v", err)
	}
	b.wantStill()
	b.abort(h)
	b.wantRunning()
	b.images = b.newImages()
	b.lazyMove(migration.Running)
}

// lazyMove takes the tree away and back.
func (b *bench) lazyMove(final migration.FinalState) {
	b.Helper()
	h, f := b.lazyRestore(final, b.lazyDead())
	b.wantStill()
	b.fill(f)
	b.wantStill()
	b.commit(h)
}

func lazyRestoreRunning(b *bench) {
	for range 5 {
		b.lazyMove(migration.Running)
		b.wantRunning()
		b.images = b.newImages()
	}
	b.dumpDead() // what was filled is dumped as any other memory is
	b.commit(b.restore(migration.Running))
	b.wantRunning()
}

func lazyRestoreStopped(b *bench) {
	b.lazyMove(migration.Stopped)
	b.wantStopped()
	if err := b.e.Continue(b.ctx(), b.s.Tree(), nil); err != nil {
		b.Fatal(err)
	}
	b.wantRunning()
}

func lazyRestoreKeepsStopped(b *bench) {
	child := b.child()
	b.s.Stop(b, child)
	b.lazyMove(migration.Running)
	b.wantRunning(child)
	b.s.Resume(b, child)
	b.wantRunning()
}

func lazyCommitUnfilled(b *bench) {
	memory := b.lazyDead()
	h, f := b.lazyRestore(migration.Running, memory)
	if _, err := h.Commit(b.ctx()); errs.KindOf(err) != errs.Conflict {
		b.Errorf("commit before the memory is there: %v", err)
	}
	b.wantStill()
	b.fill(f) // a refused commit was no verdict
	f.Close() // nor is its filler needed any more
	b.commit(h)
	b.wantRunning()
}

func lazyFillerGone(b *bench) {
	memory := b.lazyDead()
	h, f := b.lazyRestore(migration.Running, memory)
	f.Close()
	if _, err := h.Commit(b.ctx()); errs.KindOf(err) != errs.Conflict {
		b.Errorf("commit without a filler: %v", err)
	}
	b.wantStill()
	b.abort(h)
	b.wantGone()
	h, f = b.lazyRestore(migration.Running, memory)
	b.fill(f)
	b.commit(h)
	b.wantRunning()
}

func lazyPageMissing(b *bench) {
	memory := b.lazyDead()
	memory.lose.Store(true)
	h, f := b.lazyRestore(migration.Running, memory)
	if _, err := f.Fill(b.ctx(), nil); err == nil {
		b.Error("a missing page was not missed")
	}
	if _, err := h.Commit(b.ctx()); errs.KindOf(err) != errs.Conflict {
		b.Errorf("commit with a page missing: %v", err)
	}
	b.wantStill()
	b.abort(h)
	b.wantGone()
	memory.lose.Store(false)
	h, f = b.lazyRestore(migration.Running, memory)
	b.fill(f)
	b.commit(h)
	b.wantRunning()
}

func lazyFillGivenUp(b *bench) {
	h, f := b.lazyRestore(migration.Running, b.lazyDead())
	ctx, cancel := context.WithCancel(b.ctx())
	if _, err := f.Fill(ctx, func(uint64, uint64) { cancel() }); !errors.Is(err, context.Canceled) {
		b.Errorf("got %v", err)
	}
	b.abort(h)
	b.wantGone()
}

func lazyRestoreLost(b *bench) {
	memory := b.lazyDead()
	for _, filled := range []bool{false, true} {
		h, f := b.lazyRestore(migration.Running, memory)
		if filled {
			b.fill(f)
		}
		b.g.LoseEngine(b, h)
		select {
		case <-h.Lost():
		case <-time.After(patience):
			b.Fatal("Lost is not closed")
		}
		b.wantStill()
		if _, err := h.Commit(b.ctx()); !errors.Is(err, engine.ErrLost) {
			b.Errorf("commit: %v", err)
		}
		if _, err := f.Fill(b.ctx(), nil); err == nil {
			b.Error("a lost restore was filled")
		}
		b.abort(h)
		b.wantGone()
	}
	h, f := b.lazyRestore(migration.Running, memory)
	b.fill(f)
	b.commit(h)
	b.wantRunning()
}

func lazyRestoreNonsense(b *bench) {
	memory := b.lazyDead()
	req := b.s.Into(b.images)
	if _, err := b.e.Restore(b.ctx(), req); !errors.Is(err, engine.ErrBadImage) {
		b.Errorf("images without their memory: %v", err)
	}
	req.Lazy = true
	if _, err := b.e.Restore(b.ctx(), req); errs.KindOf(err) != errs.Invalid {
		b.Errorf("without a filler: %v", err)
	}
	b.wantGone()
	h, f := b.lazyRestore(migration.Running, memory)
	b.fill(f)
	b.commit(h)
	if left, _ := os.ReadDir(b.images.Name()); slices.ContainsFunc(left, func(e os.DirEntry) bool { return e.Name() != lazy.Socket && e.Type() == os.ModeSocket }) {
		b.Errorf("a socket is left in %v", left)
	}
	b.images = b.newImages()
	b.dumpDead()
	req = b.s.Into(b.images)
	req.Lazy = true
	if _, err := b.e.Restore(b.ctx(), req); !errors.Is(err, engine.ErrBadImage) {
		b.Errorf("images with their memory: %v", err)
	}
	b.wantGone()
}
