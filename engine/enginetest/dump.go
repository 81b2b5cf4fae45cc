package enginetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
)

func probeSaysWhatTheEngineIs(b *bench) {
	f, err := b.e.Probe(b.ctx())
	if err != nil {
		b.Fatal(err)
	}
	if f.Engine == "" || f.Version == "" || f.Kernel == "" {
		b.Errorf("got %+v", f)
	}
	if !f.SoftDirty && len(f.Missing) == 0 {
		b.Error("soft-dirty is missing and Missing does not say so")
	}
}

func dumpHoldsStill(b *bench) {
	h := b.dump(migration.Dead)
	b.wantStill()
	if h.Pid() != b.s.Tree().Pid {
		b.Errorf("held pid %d, dumped %d", h.Pid(), b.s.Tree().Pid)
	}
	if err := image.Check(b.images.Name()); err != nil {
		b.Error(err)
	}
	b.abort(h)
	b.wantRunning()
}

func dumpDead(b *bench) {
	b.wantRunning()
	b.dumpDead()
}

func dumpStopped(b *bench) {
	b.commit(b.dump(migration.Stopped))
	b.wantStopped()
	if err := b.e.Continue(b.ctx(), b.s.StoppedBy(b.images.Name()), nil); err != nil {
		b.Fatal(err)
	}
	b.wantRunning()
}

func dumpRunning(b *bench) {
	stats := b.commit(b.dump(migration.Running))
	b.wantRunning()
	if stats.PagesWritten == 0 {
		b.Errorf("stats: %+v", stats)
	}
}

func dumpAborted(b *bench) {
	child := b.child()
	b.s.Stop(b, child)
	h := b.dump(migration.Stopped)
	b.abort(h)
	b.wantRunning(child)
	b.s.Resume(b, child)
	b.wantRunning()
	if _, err := h.Commit(b.ctx()); !errors.Is(err, engine.ErrDecided) {
		b.Errorf("commit after abort: %v", err)
	}
}

func dumpKeepsStopped(b *bench) {
	child := b.child()
	b.s.Stop(b, child)
	b.commit(b.dump(migration.Stopped))
	b.wantStopped()
	keep, err := image.StoppedBefore(b.images.Name())
	if err != nil || !slices.Equal(keep, []int{child}) {
		b.Fatalf("the images say that %v were stopped before (%v), want %d", keep, err, child)
	}
	if err := b.e.Continue(b.ctx(), b.s.StoppedBy(b.images.Name()), keep); err != nil {
		b.Fatal(err)
	}
	b.wantRunning(child)
	b.s.Resume(b, child)
	b.wantRunning()
}

// socketPair are the two ends of a connected stream socket, closed with the test.
func (b *bench) socketPair() (server, client *os.File) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	server, client = os.NewFile(uintptr(fds[0]), "server"), os.NewFile(uintptr(fds[1]), "client")
	b.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

func dumpSendsPages(b *bench) {
	server, client := b.socketPair()
	sink := &assemble{dir: b.images.Name()}
	served := make(chan error, 1)
	go func() { served <- image.ServePages(server, sink, nil) }()
	req := b.request(migration.Dead)
	req.Pages = client
	h, err := b.e.Dump(b.ctx(), req)
	if err != nil {
		b.Fatal(err)
	}
	if err := <-served; err != nil {
		b.Fatal(err)
	}
	if err := image.Check(b.images.Name()); err != nil {
		b.Fatal(err)
	}
	b.commit(h)
	b.wantGone()
	b.commit(b.restore(migration.Running))
	b.wantRunning()
}

func atFreezeSeesStill(b *bench) {
	req := b.request(migration.Running)
	called := 0
	req.AtFreeze = func(context.Context) error {
		called++
		b.wantStill()
		return nil
	}
	h, err := b.e.Dump(b.ctx(), req)
	if err != nil {
		b.Fatal(err)
	}
	if called != 1 {
		b.Errorf("called %d times", called)
	}
	b.commit(h)
	b.wantRunning()
}

func atFreezeAborts(b *bench) {
	no := errors.New("no")
	req := b.request(migration.Dead)
	req.AtFreeze = func(context.Context) error { return no }
	if _, err := b.e.Dump(b.ctx(), req); !errors.Is(err, no) {
		b.Errorf("got %v", err)
	}
	b.wantRunning()
}

func dumpTimesOut(b *bench) {
	ctx, cancel := context.WithCancel(b.ctx())
	req := b.request(migration.Dead)
	req.AtFreeze = func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	if _, err := b.e.Dump(ctx, req); !errors.Is(err, context.Canceled) {
		b.Errorf("got %v", err)
	}
	b.wantRunning()
}

func dumpStuck(b *bench) {
	_, client := b.socketPair()
	req := b.request(migration.Dead)
	req.Pages, req.Timeout = client, 300*time.Millisecond
	_, err := b.e.Dump(b.ctx(), req)
	if err == nil {
		b.Fatal("the dump succeeded")
	}
	b.wantRunning()
	b.images = b.newImages()
	b.abort(b.dump(migration.Dead)) // nothing of the attempt is in the way
	b.wantRunning()
}

func dumpGone(b *bench) {
	if err := b.e.Kill(b.ctx(), b.s.Tree()); err != nil {
		b.Fatal(err)
	}
	b.wantGone()
	_, err := b.e.Dump(b.ctx(), b.request(migration.Dead))
	if !errors.Is(err, engine.ErrGone) || errs.KindOf(err) != errs.NotFound {
		b.Errorf("got %v (%v)", err, errs.KindOf(err))
	}
}

func dumpNonsense(b *bench) {
	if _, err := b.e.Dump(b.ctx(), b.request("asleep")); errs.KindOf(err) != errs.Invalid {
		b.Errorf("got %v", err)
	}
	b.wantRunning()
}

func dumpLost(b *bench) {
	h := b.dump(migration.Dead)
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
	b.wantStill()
	b.abort(h)
	b.wantRunning()
	b.images = b.newImages()
	b.dumpDead()
}

func preDump(b *bench) {
	f, err := b.e.Probe(b.ctx())
	if err != nil {
		b.Fatal(err)
	}
	stats, err := b.e.PreDump(b.ctx(), engine.PreDumpRequest{Tree: b.s.Tree(), Options: b.s.Options(), Images: b.images})
	switch {
	case !f.SoftDirty && !errors.Is(err, engine.ErrNoTracking):
		b.Errorf("without soft-dirty: %v", err)
	case f.SoftDirty && err != nil:
		b.Errorf("with soft-dirty: %v", err)
	}
	b.wantRunning()
	if !f.SoftDirty {
		return
	}
	first := b.images
	b.images = b.newImages()
	req := b.request(migration.Dead)
	if req.Parent, err = filepath.Rel(b.images.Name(), first.Name()); err != nil {
		b.Fatal(err)
	}
	h, err := b.e.Dump(b.ctx(), req)
	if err != nil {
		b.Fatal(err)
	}
	if final := b.commit(h); final.PagesWritten >= stats.PagesWritten || final.PagesParent == 0 {
		b.Errorf("the final dump wrote %d pages of %d, %d are in the parent", final.PagesWritten, stats.PagesWritten, final.PagesParent)
	}
	b.wantGone()
	b.commit(b.restore(migration.Running))
	b.wantRunning()
}

func preDumpNonsense(b *bench) {
	for _, final := range []migration.FinalState{migration.Dead, migration.Stopped} {
		_, err := b.e.PreDump(b.ctx(), engine.PreDumpRequest{Tree: b.s.Tree(), Options: b.s.Options(), Images: b.images, FinalState: final})
		if errs.KindOf(err) != errs.Invalid {
			b.Errorf("%s: %v", final, err)
		}
	}
	b.wantRunning()
}
