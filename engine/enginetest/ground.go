package enginetest

import (
	"context"
	"os"
	"testing"
	"time"

	"drover/engine"
	"drover/engine/image"
	"drover/internal/migration"
)

// Ground is where the suite stands: one engine and trees of its host to try it on.
type Ground interface {
	Engine() engine.Engine
	// Start begins a tree: a parent with two children, several threads each, joined by pipes, each with memory it writes to
	// and checks. It is gone when the test ends.
	Start(t testing.TB) Subject
	// Pass lets time pass in which any tree that runs would do some work.
	Pass(t testing.TB)
	// LoseEngine ends the process behind a hold.
	LoseEngine(t testing.TB, h engine.Hold)
}

// Subject is one tree through its dumps and restores.
type Subject interface {
	Tree() engine.Tree
	// StoppedBy is the tree as a dump into that directory has left it stopped.
	StoppedBy(images string) engine.Tree
	Options() engine.Options
	// Look shows every process of the tree by its own pid; nothing when it is gone.
	Look(t testing.TB) map[int]Process
	// Stop stops one process with SIGSTOP and returns when all its threads stand.
	Stop(t testing.TB, pid int)
	// Resume sends one process SIGCONT.
	Resume(t testing.TB, pid int)
	// Into is a restore of the tree from images, into the place it had.
	Into(images *os.File) engine.RestoreRequest
	// Restored tells the subject that its root is now pid.
	Restored(pid int)
	// Verify fails the test if the tree found a wrong page in its own memory.
	Verify(t testing.TB)
}

// Process is what a look shows of one.
type Process struct {
	Work    uint64 // rises while the process runs
	Stopped bool   // by a signal, every thread
}

// patience bounds every wait for something that must come.
const patience = 20 * time.Second

// bench is one test's tree and engine.
type bench struct {
	testing.TB
	g      Ground
	e      engine.Engine
	s      Subject
	images *os.File
}

func newBench(t *testing.T, g Ground) *bench {
	b := &bench{TB: t, g: g, e: g.Engine(), s: g.Start(t)}
	b.images = b.newImages()
	return b
}

// newImages is an empty directory that goes with the test.
func (b *bench) newImages() *os.File {
	b.Helper()
	d, err := os.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	return d
}

func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	b.Cleanup(cancel)
	return ctx
}

func (b *bench) request(final migration.FinalState) engine.DumpRequest {
	return engine.DumpRequest{Tree: b.s.Tree(), Options: b.s.Options(), FinalState: final, Images: b.images}
}

func (b *bench) dump(final migration.FinalState) engine.Hold {
	b.Helper()
	h, err := b.e.Dump(b.ctx(), b.request(final))
	if err != nil {
		b.Fatalf("dump: %v", err)
	}
	return h
}

func (b *bench) commit(h engine.Hold) engine.Stats {
	b.Helper()
	stats, err := h.Commit(b.ctx())
	if err != nil {
		b.Fatalf("commit: %v", err)
	}
	return stats
}

func (b *bench) abort(h engine.Hold) {
	b.Helper()
	if err := h.Abort(b.ctx()); err != nil {
		b.Fatalf("abort: %v", err)
	}
}

// dumpDead takes the tree away and leaves its images.
func (b *bench) dumpDead() {
	b.Helper()
	b.commit(b.dump(migration.Dead))
	b.wantGone()
}

func (b *bench) restore(final migration.FinalState) engine.Hold {
	b.Helper()
	req := b.s.Into(b.images)
	req.FinalState = final
	h, err := b.e.Restore(b.ctx(), req)
	if err != nil {
		b.Fatalf("restore: %v", err)
	}
	b.s.Restored(h.Pid())
	return h
}

// eventually waits for a condition that must come true.
func (b *bench) eventually(what string, holds func() bool) {
	b.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			b.Fatalf("not within %s: %s", patience, what)
		}
		b.g.Pass(b)
	}
}

// wantRunning fails unless every process works, but those in stopped, which stand.
func (b *bench) wantRunning(stopped ...int) {
	b.Helper()
	before := b.s.Look(b)
	if len(before) == 0 {
		b.Fatal("the tree is gone")
	}
	stands := map[int]bool{}
	for _, pid := range stopped {
		stands[pid] = true
		b.eventually("a process stopped before is stopped", func() bool { return b.s.Look(b)[pid].Stopped })
	}
	before = b.s.Look(b)
	b.eventually("every process works", func() bool {
		now := b.s.Look(b)
		for pid, p := range before {
			if !stands[pid] && now[pid].Work <= p.Work {
				return false
			}
		}
		return true
	})
	now := b.s.Look(b)
	for pid := range stands {
		if now[pid].Work != before[pid].Work {
			b.Errorf("process %d was stopped and works", pid)
		}
	}
	b.s.Verify(b)
}

// wantStill fails if any process does any work.
func (b *bench) wantStill() {
	b.Helper()
	before := b.s.Look(b)
	if len(before) == 0 {
		b.Fatal("the tree is gone")
	}
	b.g.Pass(b)
	for pid, p := range b.s.Look(b) {
		if p.Work != before[pid].Work {
			b.Errorf("process %d works: %d, then %d", pid, before[pid].Work, p.Work)
		}
	}
}

func (b *bench) wantStopped() {
	b.Helper()
	b.wantStill()
	for pid, p := range b.s.Look(b) {
		if !p.Stopped {
			b.Errorf("process %d is not stopped", pid)
		}
	}
}

func (b *bench) wantGone() {
	b.Helper()
	b.eventually("nothing is left of the tree", func() bool { return len(b.s.Look(b)) == 0 })
}

// child is the pid of a process of the tree that is not its root, the same one every time.
func (b *bench) child() int {
	b.Helper()
	highest := 0
	for pid := range b.s.Look(b) {
		highest = max(highest, pid)
	}
	return highest
}

// assemble is a page sink that writes a directory's images as a target would.
type assemble struct {
	dir string
	n   uint32
	w   *image.PagemapWriter
}

func (a *assemble) Open(s image.Space) (err error) {
	if err := a.Close(); err != nil {
		return err
	}
	a.n++
	a.w, err = image.NewPagemapWriter(a.dir, s, a.n)
	return err
}

func (a *assemble) Run(addr uint64, flags uint32, data []byte) error {
	return a.w.Run(addr, flags, data)
}

func (a *assemble) Hole(addr uint64, flags uint32, n uint64) error { return a.w.Hole(addr, flags, n) }

func (a *assemble) Close() error {
	if a.w == nil {
		return nil
	}
	w := a.w
	a.w = nil
	return w.Close()
}
