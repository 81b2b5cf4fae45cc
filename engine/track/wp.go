package track

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/internal/proc"
	"drover/engine/track/inject"
	"drover/internal/errs"
)

// NewWP makes the tracker that has the kernel note which pages are written: userfaultfd's asynchronous write protection, made once in each
// process (see inject) and read with PAGEMAP_SCAN. A round costs what was written, and some milliseconds a GiB. It needs ProbeWP to
// say nothing. Processes that cannot be watched, and memory that processes share, are hashed instead; the former are logged, and
// named in the rounds' figures. The tree need not be stopped for Close, which costs some milliseconds a GiB.
//
// start starts the process that injects (inject.Start), for the rest of a round that has found processes which are not watched yet.
func NewWP(t engine.Tree, start func() (*inject.Injector, error), log *slog.Logger) Exact {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &wpTracker{tree: t, start: start, log: log, buf: make([]byte, readPages*image.PageSize), hasher: newHasher(), watched: map[int]*watch{}, refused: map[int]error{}}
}

type wpTracker struct {
	tree     engine.Tree
	start    func() (*inject.Injector, error)
	injector *inject.Injector // nil between rounds, and until one needs it
	log      *slog.Logger
	buf      []byte
	hasher   *hasher
	watched  map[int]*watch // by pid on this host
	refused  map[int]error  // those that are hashed, and why
	dropped  []image.Space  // since the last round's end
}

func (w *wpTracker) Name() string { return "wp" }

func (w *wpTracker) Parent() string { return "" }

func (w *wpTracker) Close() error {
	for pid := range w.watched {
		w.drop(pid)
	}
	return nil
}

// dismiss lets the process that injects end.
func (w *wpTracker) dismiss() {
	if w.injector != nil {
		w.injector.Close()
	}
	w.injector = nil
}

func (w *wpTracker) drop(pid int) {
	if one := w.watched[pid]; one != nil {
		one.close()
		w.dropped = append(w.dropped, one.space)
	}
	delete(w.watched, pid)
}

func (w *wpTracker) Round(ctx context.Context, emit func(image.Space, uint64, []byte) error) (RoundStats, error) {
	st := RoundStats{Tracker: w.Name()}
	begin := time.Now()
	defer w.dismiss()
	err := w.round(ctx, emit, &st)
	st.Took = time.Since(begin)
	if err != nil {
		_ = w.Close() // what was protected and not handed over is handed over by a round that begins anew
		w.hasher = newHasher()
	}
	return st, err
}

func (w *wpTracker) round(ctx context.Context, emit func(image.Space, uint64, []byte) error, st *RoundStats) error {
	pids, err := w.follow(ctx, st)
	if err != nil {
		return err
	}
	out := &outlet{emit: emit}
	pass := w.hasher.pass(out.hand, st)
	shared := objects{}
	r := &reader{emit: out.hand, buf: w.buf}
	for _, pid := range pids {
		err := w.look(ctx, pid, r, pass, shared, st)
		switch {
		case out.failed != nil:
			return out.failed
		case ctx.Err() != nil:
			return ctx.Err()
		case gone(err):
			continue // its pages are needed no more, or all are in the next round
		case err != nil:
			return fmt.Errorf("read memory of pid %d: %w", pid, err)
		}
		st.Processes++
	}
	if st.Processes == 0 && !slices.ContainsFunc(append(pids, w.tree.Pid), alive) { // in the middle of execve(2) a cgroup may list nothing
		return fmt.Errorf("track pid %d: %w", w.tree.Pid, engine.ErrGone)
	}
	if err := shared.hash(ctx, pass); err != nil {
		return fmt.Errorf("read shared memory: %w", err)
	}
	st.Gone = w.gone(pass.end())
	if len(w.watched) == 0 {
		st.Tracker = "hash"
	}
	for pid, why := range w.refused {
		st.Fallback = fmt.Sprintf("%d of %d processes are hashed: pid %d: %s", len(w.refused), st.Processes, pid, why)
	}
	return nil
}

// gone are those of the spaces that are not hashed any more, and of those that are not watched any more, that are neither now.
func (w *wpTracker) gone(unhashed []image.Space) []image.Space {
	gone := slices.Concat(unhashed, w.dropped)
	w.dropped = nil
	return slices.DeleteFunc(gone, func(s image.Space) bool {
		for _, one := range w.watched {
			if one.space == s {
				return true
			}
		}
		return w.hasher.seen[s] != nil
	})
}

// look makes one process's part of a round.
func (w *wpTracker) look(ctx context.Context, pid int, r *reader, pass *pass, shared objects, st *RoundStats) error {
	for range 2 {
		one := w.watched[pid]
		if one == nil {
			break
		}
		maps, err := one.process.maps()
		if err == nil {
			shared.add(pid, maps)
			err = one.look(ctx, maps, r, st)
		}
		if err == nil {
			st.Mappings += uint64(len(maps))
			return nil
		}
		w.drop(pid)
		switch {
		case ctx.Err() != nil || r.failed:
			return err
		case errors.Is(err, errOtherMemory):
			err = w.attach(ctx, pid, st)
		}
		if err != nil && ctx.Err() == nil && !gone(err) {
			w.refuse(pid, err)
		}
	}
	if w.refused[pid] == nil { // it has ended, borrows its parent's memory, or runs one program after the other
		return unix.ESRCH
	}
	return hashProcess(ctx, pid, pass, shared)
}

// refuse has a process hashed from now on.
func (w *wpTracker) refuse(pid int, why error) {
	w.log.Warn("writes of a process cannot be watched: it is hashed", "pid", pid, "error", why)
	w.refused[pid] = why
}

func (w *wpTracker) Changed(ctx context.Context) (*Changes, error) {
	begin := time.Now()
	c := &Changes{same: map[uint64][]span{}, stats: RoundStats{Tracker: w.Name()}}
	pids := proc.OfTree(w.tree)
	clean := make([][]span, len(pids))
	var looks errgroup.Group
	looks.SetLimit(runtime.GOMAXPROCS(0)) // the tree stands still: no core has anything better to do
	for i, pid := range pids {
		looks.Go(func() (err error) {
			clean[i], err = w.clean(ctx, pid)
			return err
		})
	}
	if err := looks.Wait(); err != nil {
		return nil, err
	}
	for i, pid := range pids {
		if one := w.watched[pid]; one != nil {
			c.add(one.space.ID, clean[i], one.process.pages())
			c.watched = append(c.watched, one)
		}
	}
	if c.stats.Processes = len(pids); len(pids) == 0 {
		return nil, errs.New(errs.Failed, "track pid %d: %w", w.tree.Pid, engine.ErrGone)
	}
	c.stats.Took = time.Since(begin)
	return c, nil
}

// clean is what one process still has as the rounds have handed it over; nothing, if that cannot be told.
func (w *wpTracker) clean(ctx context.Context, pid int) ([]span, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	one := w.watched[pid]
	if one == nil {
		return nil, w.clear(pid)
	}
	same, err := one.clean()
	if err != nil && !errors.Is(err, errOtherMemory) && !gone(err) {
		w.log.Warn("pages of a process that did not change cannot be told: all of them count as changed", "pid", pid, "error", err)
	}
	return same, nil
}

// clear makes sure that a process that came since the last round has inherited no descriptor of ours, with which it could not be
// dumped. Frozen, it cannot be rid of it.
func (w *wpTracker) clear(pid int) error {
	for _, other := range w.watched {
		if inject.Stray(pid, other.uffd) {
			return errs.New(errs.Conflict, "pid %d was forked while its parent was being watched and has inherited a userfaultfd", pid).WithNext("let the tree run on; the next round closes it")
		}
	}
	return nil
}
