package session

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine/lazy"
	"drover/internal/errs"
	"drover/transfer"
	workerapi "drover/worker/api"
	"drover/worker/session/rules"
	"drover/worker/tree"
)

// memory is the private memory of a tree that comes: where in the stream's store which page stands. The content stays there, and
// another process puts it into the restored tree.
type memory struct {
	index lazy.Index
	file  *os.File // the index, once it is complete
	pages uint64
	eager bool   // all is to be in place before the tree is released
	letGo func() // of what fills
}

// beginFill starts what will fill in the memory, so that this need not be done in the freeze. nil says that memory goes through
// images, which work everywhere.
func (t *target) beginFill(ctx context.Context, store *transfer.Store) (*memory, error) {
	switch err := t.shell.Fills(ctx); {
	case errs.KindOf(err) == errs.Unavailable:
		t.log.Info("memory goes through images", "reason", err)
		return nil, nil
	case err != nil:
		return nil, err
	}
	fd, err := unix.MemfdCreate("drover-index", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, errs.New(errs.Failed, "make a file for the memory's index: %w", err)
	}
	m := &memory{index: lazy.Index{}, file: os.NewFile(uintptr(fd), "drover-index")}
	soon := time.Duration(float64(t.req.Inventory.RSS)/t.host.fillRate()*float64(time.Second)) <= fillSoon
	m.eager = t.req.Options.Fill == workerapi.FillHeld || t.req.Options.Fill == "" && soon
	files := lazy.Files{Index: m.file}
	pages, spilled := store.Files()
	if files.Pages = pages; spilled != nil {
		files.Spilled, files.Seals = spilled.Files()
	}
	if m.letGo, err = t.shell.Fill(ctx, files, m.eager); err != nil {
		m.file.Close()
		return nil, errs.New(errs.KindOf(err), "prepare to fill in the memory: %w", err)
	}
	return m, nil
}

// close lets go of what fills: once the restore has begun it goes on by itself.
func (m *memory) close() {
	if m != nil {
		m.letGo()
		m.file.Close()
	}
}

// add notes the content of pages, which stays in the store; addresses of a process rise from call to call.
func (m *memory) add(pid, addr uint64, c transfer.Content) {
	at, ok := c.Offset()
	if !ok {
		at = lazy.Zeros
	}
	m.pages += uint64(c.Pages())
	m.index.Add(pid, lazy.Extent{Addr: addr, Pages: uint64(c.Pages()), Offset: at})
}

// seal writes the index for what fills.
func (m *memory) seal() error {
	if err := lazy.WriteIndex(m.file, m.index); err != nil {
		return errs.New(errs.Failed, "write the memory's index: %w", err)
	}
	return nil
}

// What fills is looked at so often: while the tree stands still, and while it runs.
const (
	lookHeld    = time.Millisecond
	lookRunning = 50 * time.Millisecond
)

// A tree whose memory is filled in so quickly is filled before it is released: it then waits for no page. fillRate is what a host
// fills, in bytes a second, as long as it has not been measured.
const (
	fillSoon = 10 * time.Millisecond
	fillRate = 4e9
)

// fillRate is how many bytes a second this host fills in, as far as it knows.
func (r *Registry) fillRate() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rate == 0 {
		return fillRate
	}
	return r.rate
}

// fillSample is how much must have been filled in for its rate to say something, in bytes.
const fillSample = 16 << 20

// filled notes how long it took to fill in so much.
func (r *Registry) filled(bytes uint64, took time.Duration) {
	if bytes < fillSample || took <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate = float64(bytes) / took.Seconds()
}

// awaitFill returns when the held tree may be released as far as its memory goes: it is all in place, or what fills has vouched for it.
func (t *target) awaitFill(ctx context.Context, m *memory) (filled bool, err error) {
	begun := time.Now()
	for {
		f, err := t.lookFilling()
		switch {
		case err != nil && lastingly(err):
			return false, errs.New(errs.KindOf(err), "fill the memory of %s on %s: %w", t.req.Spec.Name, t.host.cfg.Host, err)
		case f.Over:
			t.log.Info("memory filled in", "bytes", f.All, "waited", time.Since(begun))
			t.host.filled(f.All, f.Took)
			return true, nil
		case f.All > 0 && !m.eager:
			return false, nil
		}
		select {
		case <-time.After(lookHeld):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// lookFilling looks how far the filling is, and remembers it for State. What cannot be looked at stays as it was.
func (t *target) lookFilling() (tree.Filling, error) {
	f, err := t.shell.Filling()
	if err != nil {
		return f, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.filling = f
	return f, nil
}

// inPlace is how much of the tree's memory has been filled in, in bytes, as far as it is known.
func (t *target) inPlace() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int64(t.filling.Done)
}

// lastingly says whether an error of Filling is for good: what fills is gone.
func lastingly(err error) bool {
	return errs.KindOf(err) == errs.Failed || errs.KindOf(err) == errs.NotFound
}

// watchFilling follows the filling of a tree that is held, or runs, to its end. One that comes to nothing before the verdict makes the
// session fail. After it the tree is dead, or is killed now: the source, which is still held, can be brought back.
//
// So does one that stands still: the tree waits for its pages, and the source for the last of them, and nobody else would end that.
func (t *target) watchFilling(ctx context.Context) {
	var still stillness
	for {
		f, err := t.lookFilling()
		if lasts := still.look(f.Beats, time.Now()); err == nil && !f.Over && lasts >= t.host.stillFor() {
			err = errs.New(errs.Failed, "what fills in the tree's memory stands still: not one page in %s, after %d of %d MiB", lasts.Round(time.Second), f.Done>>20, f.All>>20)
		}
		switch {
		case err != nil && lastingly(err):
			if t.unfilled(ctx, err) {
				return
			}
		case err != nil:
			t.log.Warn("it cannot be seen how far the tree's memory is in place", "error", err)
		case f.Over:
			t.host.filled(f.All, f.Took)
			t.host.free(t.req.Migration)
			t.change("memory filled in", func(*workerapi.SessionState) {})
			return
		default:
			t.mu.Lock()
			t.look(&t.diary.state.SessionState)
			t.diary.writeProgress()
			t.mu.Unlock()
		}
		select {
		case <-time.After(lookRunning):
		case <-ctx.Done():
			return
		}
	}
}

// unfilled ends a tree whose memory will not come, and says whether there is nothing more to do. Until it is dead the session says that
// it is being filled in: nobody may end the source meanwhile.
func (t *target) unfilled(ctx context.Context, why error) (over bool) {
	ctx, free, err := t.act(ctx)
	if err != nil {
		return true
	}
	defer free()
	program := t.giveUp(errs.New(errs.Failed, "fill the memory of %s on %s: %w", t.req.Spec.Name, t.host.cfg.Host, why).
		WithNext("nothing of it has run here; migrate again"), func(st *rules.Session) (p rules.Program) {
		p, over = st.Unfilled()
		return p
	})
	if t.state().Step != workerapi.StepReleased || len(program) == 0 {
		t.tryAll(ctx, program)
		return over
	}
	if alive, _, _ := t.shell.Alive(); !alive { // which probation sees by itself; its keeper may have gone with it
		return true
	}
	t.log.Error("the tree is killed: its memory is not all in place", "error", why)
	if _, err := t.run(ctx, program); err != nil {
		t.log.Error("the tree is not killed", "error", err)
		return false
	}
	t.passed(int(unix.SIGKILL))
	return over
}
