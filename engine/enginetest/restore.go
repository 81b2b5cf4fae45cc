package enginetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

func restoreHoldsStill(b *bench) {
	before := b.s.Look(b)
	b.dumpDead()
	h := b.restore(migration.Running)
	b.wantStill()
	if now := b.s.Look(b); len(now) != len(before) {
		b.Errorf("%d processes of %d", len(now), len(before))
	}
	b.commit(h)
	b.wantRunning()
}

func restoreRunning(b *bench) {
	b.wantRunning()
	b.dumpDead()
	b.commit(b.restore("")) // running is the default
	b.wantRunning()
}

func restoreStopped(b *bench) {
	b.dumpDead()
	b.commit(b.restore(migration.Stopped))
	b.wantStopped()
	if err := b.e.Continue(b.ctx(), b.s.Tree(), nil); err != nil {
		b.Fatal(err)
	}
	b.wantRunning()
}

func restoreAborted(b *bench) {
	b.dumpDead()
	h := b.restore(migration.Running)
	b.abort(h)
	b.wantGone()
	if _, err := h.Commit(b.ctx()); !errors.Is(err, engine.ErrDecided) {
		b.Errorf("commit after abort: %v", err)
	}
	b.commit(b.restore(migration.Running))
	b.wantRunning()
}

func restoreKeepsStopped(b *bench) {
	child := b.child()
	b.s.Stop(b, child)
	b.dumpDead()
	b.commit(b.restore(migration.Running))
	b.wantRunning(child)
	b.s.Resume(b, child)
	b.wantRunning()
}

func restoreAhead(b *bench) {
	b.dumpDead()
	later := b.newImages()
	req, asked := b.s.Into(later), false
	req.AtReady = func(context.Context) (lazy bool, err error) {
		asked = true
		return false, os.CopyFS(later.Name(), os.DirFS(b.images.Name()))
	}
	h, err := b.e.Restore(b.ctx(), req)
	if err != nil || !asked {
		b.Fatalf("asked %v, %v", asked, err)
	}
	b.s.Restored(h.Pid())
	b.wantStill()
	b.commit(h)
	b.wantRunning()
}

func restoreInVain(b *bench) {
	b.dumpDead()
	why := errors.New("the images do not come")
	req := b.s.Into(b.newImages())
	req.AtReady = func(context.Context) (lazy bool, err error) { return false, why }
	if _, err := b.e.Restore(b.ctx(), req); !errors.Is(err, why) {
		b.Errorf("%v", err)
	}
	b.wantGone()
	b.commit(b.restore(migration.Running)) // into the same cgroup, which is empty
	b.wantRunning()
}

func restoreBadImages(b *bench) {
	b.dumpDead()
	for _, spoil := range []struct {
		name string
		do   func(dir string) error
	}{
		{"the inventory is missing", func(dir string) error { return os.Remove(filepath.Join(dir, "inventory.img")) }},
		{"the process list is torn", func(dir string) error { return cut(dir, "pstree.img", 11) }},
		{"the pages are torn", func(dir string) error { return cut(dir, "pages-1.img", 4097) }},
		{"a file is not an image", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "pstree.img"), []byte("hello, world"), 0o600)
		}},
	} {
		bad := b.copyImages()
		if err := spoil.do(bad.Name()); err != nil {
			b.Fatal(err)
		}
		if _, err := b.e.Restore(b.ctx(), b.s.Into(bad)); !errors.Is(err, engine.ErrBadImage) {
			b.Errorf("%s: %v", spoil.name, err)
		}
		b.wantGone()
	}
	b.commit(b.restore(migration.Running))
	b.wantRunning()
}

// cut shortens a file.
func cut(dir, name string, to int64) error { return os.Truncate(filepath.Join(dir, name), to) }

// copyImages is the images again, to be spoiled.
func (b *bench) copyImages() *os.File {
	d := b.newImages()
	if err := os.CopyFS(d.Name(), os.DirFS(b.images.Name())); err != nil {
		b.Fatal(err)
	}
	return d
}

func restoreNonsense(b *bench) {
	b.dumpDead()
	req := b.s.Into(b.images)
	req.FinalState = migration.Dead
	if _, err := b.e.Restore(b.ctx(), req); errs.KindOf(err) != errs.Invalid {
		b.Errorf("dead: %v", err)
	}
	req = b.s.Into(b.images)
	req.Cgroup = ""
	if _, err := b.e.Restore(b.ctx(), req); errs.KindOf(err) != errs.Invalid {
		b.Errorf("no cgroup: %v", err)
	}
	b.wantGone()
}

func restoreLost(b *bench) {
	b.dumpDead()
	h := b.restore(migration.Running)
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
	b.abort(h)
	b.wantGone()
	b.commit(b.restore(migration.Running))
	b.wantRunning()
}

func moveAgain(b *bench) {
	for range 5 {
		b.dumpDead()
		b.commit(b.restore(migration.Running))
		b.wantRunning()
		b.images = b.newImages()
	}
}

func kill(b *bench) {
	h := b.dump(migration.Dead)
	b.g.LoseEngine(b, h)
	<-h.Lost()
	if err := b.e.Kill(b.ctx(), b.s.Tree()); err != nil {
		b.Errorf("frozen: %v", err)
	}
	b.wantGone()
	if err := b.e.Kill(b.ctx(), b.s.Tree()); err != nil {
		b.Errorf("gone: %v", err)
	}
	b.commit(b.restore(migration.Stopped))
	if err := b.e.Kill(b.ctx(), b.s.Tree()); err != nil {
		b.Errorf("stopped: %v", err)
	}
	b.wantGone()
}

func continueRunning(b *bench) {
	if err := b.e.Continue(b.ctx(), b.s.Tree(), nil); err != nil {
		b.Error(err)
	}
	b.wantRunning()
	if err := b.e.Kill(b.ctx(), b.s.Tree()); err != nil {
		b.Fatal(err)
	}
	b.wantGone()
	if err := b.e.Continue(b.ctx(), b.s.Tree(), nil); !errors.Is(err, engine.ErrGone) {
		b.Errorf("of a dead tree: %v", err)
	}
}

func oneVerdict(b *bench) {
	h := b.dump(migration.Stopped)
	first := b.commit(h)
	second, err := h.Commit(b.ctx())
	if err != nil || first != second {
		b.Errorf("the second commit: %+v, %v; the first: %+v", second, err, first)
	}
	if err := h.Abort(b.ctx()); !errors.Is(err, engine.ErrDecided) {
		b.Errorf("abort after commit: %v", err)
	}
	b.wantStopped()
	if err := b.e.Continue(b.ctx(), b.s.StoppedBy(b.images.Name()), nil); err != nil {
		b.Fatal(err)
	}
	b.images = b.newImages()
	h = b.dump(migration.Dead)
	b.abort(h)
	b.abort(h)
	b.wantRunning()
}
