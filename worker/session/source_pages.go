package session

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
	"drover/internal/errs"
	"drover/transfer"
	workerapi "drover/worker/api"
)

// pagesBuffer is how many bytes CRIU may be ahead of the stream: enough that neither waits for the other at every run.
const pagesBuffer = 4 << 20

// progressEvery is how often a round's progress is an event.
const progressEvery = 250 * time.Millisecond

// round makes one round: what changed since the last goes to the target, files included, with the tree running.
func (s *source) round(ctx context.Context) error {
	n, begun := s.progress().Round+1, time.Now()
	said, since, throttle := begun, begun.Sub(s.lookedAt), s.looked
	s.lookedAt, s.looked = begun, s.progress().Throttle
	before := s.out.Progress()
	paced := time.Duration(0)
	keepToShare := func() error {
		waited, err := s.host.cfg.CPU.Wait(ctx)
		paced += waited
		return err
	}
	stats, err := s.tracker.Round(ctx, func(sp image.Space, addr uint64, data []byte) error {
		if err := keepToShare(); err != nil {
			return err
		}
		if time.Since(said) > progressEvery {
			said = time.Now()
			s.report(n, before)
		}
		return s.out.offer(sp, addr, data)
	})
	var cost transfer.RoundReport
	if err == nil {
		err = s.lent.Carry(ctx, s.out.carry)
	}
	if err == nil {
		err = s.out.drop(stats.Gone)
	}
	if err == nil {
		cost, err = s.out.EndRound(ctx)
	}
	if err == nil {
		err = keepToShare() // a round that only looks sends nothing
	}
	if err != nil {
		return errs.New(errs.KindOf(err), "round %d of %s: %w", n, s.req.Spec.Name, err)
	}
	if was := s.progress().Tracker; stats.Fallback != "" && (was != s.tracker.Name() || n == 1) {
		s.change(stats.Fallback, func(st *workerapi.SessionState) { st.Progress.Tracker = s.tracker.Name() })
	}
	s.laps = append(s.laps, lap{since: since, throttle: throttle, limit: s.progress().Limit, paced: paced, Round: workerapi.Round{
		N: n, Track: stats, PagesSent: cost.PagesSent, PagesFound: cost.PagesFound, WireBytes: cost.WireBytes, Took: time.Since(begun),
	}})
	if len(s.laps) > mostRounds { // light rounds go on for as long as the wait
		s.laps = append([]lap(nil), s.laps[1:]...)
	}
	now := s.out.Progress()
	s.tell(func(p *workerapi.Progress) {
		p.Round, p.PagesSent, p.PagesFound, p.WireBytes, p.PagesLeft, p.TimeLeft = n, now.PagesSent, now.PagesFound, now.WireBytes, 0, 0
		p.PagesTotal = max(stats.Scanned, stats.Emitted)
		p.Rounds = p.Rounds[:0:0]
		for _, l := range s.laps {
			p.Rounds = append(p.Rounds, l.Round)
		}
		c := s.reckoning()
		o := look(s.laps, p.PagesTotal, c)
		p.Expected = workerapi.Expected{Way: c.way, Own: o.own, Link: o.link}
		p.BlackoutGuess, p.DirtyRate, p.Rate = o.blackout, o.dirtyRate, now.Rate
	})
	s.log.Debug("round", "round", n, "scanned", stats.Scanned, "emitted", stats.Emitted, "sent", cost.PagesSent, "wire_bytes", cost.WireBytes)
	return nil
}

// finalRound reports the pass in the freeze.
func (s *source) finalRound(frozenAt time.Time) {
	cost := s.out.FinalReport()
	s.tell(func(p *workerapi.Progress) {
		p.Rounds = append(p.Rounds[:len(p.Rounds):len(p.Rounds)], workerapi.Round{
			N: p.Round + 1, Final: true, PagesSent: cost.PagesSent, PagesFound: cost.PagesFound, WireBytes: cost.WireBytes, Took: time.Since(frozenAt),
		})
		p.PagesSent, p.PagesFound, p.WireBytes = p.PagesSent+cost.PagesSent, p.PagesFound+cost.PagesFound, p.WireBytes+cost.WireBytes
	})
}

// report tells how far round n is; before is where the stream stood when it began.
func (s *source) report(n int, before transfer.Progress) {
	now := s.out.Progress()
	looked := now.PagesOffered - before.PagesOffered
	s.tell(func(p *workerapi.Progress) {
		p.Round, p.PagesSent, p.PagesFound, p.WireBytes, p.Rate = n, now.PagesSent, now.PagesFound, now.WireBytes, now.Rate
		p.PagesLeft = p.PagesTotal - min(p.PagesTotal, looked)
		if now.Rate > 0 {
			p.TimeLeft = time.Duration(float64(p.PagesLeft*image.PageSize) / now.Rate * float64(time.Second))
		}
	})
}

// tell changes the progress and makes it an event.
func (s *source) tell(f func(*workerapi.Progress)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.diary.state.Progress)
	s.diary.writeProgress()
}

func (s *source) progress() workerapi.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.diary.state.Progress
}

// dump makes the final dump: all that is not memory into the images directory, the memory straight into the stream while
// CRIU still reads. With an error and a hold, the tree is held although its image is not whole.
func (s *source) dump(ctx context.Context) (engine.Hold, error) {
	dir, err := s.openImages()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if s.lazy() {
		hold, err := s.dumpLazy(ctx, dir)
		if !errors.Is(err, engine.ErrNotLazy) {
			return hold, err
		}
		s.log.Warn("the memory goes through CRIU after all", "reason", err)
		s.whole = true
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	served := make(chan error, 1)
	go func() {
		defer ours.Close()
		err := s.out.takeImage(ours, s.tracker.Parent() != "")
		if err != nil {
			cancel(err) // a dump whose pages nobody takes would hang in its write
		}
		served <- err
	}()
	hold, err := s.lent.Engine().Dump(ctx, engine.DumpRequest{
		Tree: s.lent.Tree(), Options: s.lent.Options(), FinalState: s.final,
		Images: dir, Parent: s.tracker.Parent(), Pages: theirs,
		AtFreeze: s.atFreeze,
	})
	if err != nil {
		cancel(err)
		ours.Close()
		return nil, cause(err, <-served)
	}
	theirs.Close()
	if err := <-served; err != nil {
		back, undo := context.WithTimeout(context.WithoutCancel(ctx), actTimeout)
		defer undo()
		if stuck := hold.Abort(back); stuck != nil {
			return hold, errors.Join(err, stuck)
		}
		return nil, err
	}
	return hold, nil
}

// atFreeze hides the tree's address as soon as it stands still, and sends what has changed while CRIU writes the images.
func (s *source) atFreeze(ctx context.Context) error {
	s.setFrozen(time.Now())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.lent.Fence(ctx) })
	if s.lazy() {
		g.Go(func() error { return s.sendChanges(ctx) })
	}
	return g.Wait()
}

// cause is why a dump failed: the stream it could not write to, if that is what failed first.
func cause(dump, stream error) error {
	if stream == nil || errors.Is(stream, os.ErrClosed) || errors.Is(stream, io.ErrUnexpectedEOF) || errors.Is(stream, context.Canceled) {
		return dump
	}
	return errors.Join(stream, dump)
}

func (s *source) openImages() (*os.File, error) {
	path := filepath.Join(s.dir, "dump")
	if err := os.RemoveAll(path); err != nil {
		return nil, errs.New(errs.Failed, "empty image directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, errs.New(errs.Failed, "make image directory: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, errs.New(errs.Failed, "open image directory: %w", err)
	}
	return dir, nil
}

// sendRest sends what has not gone while CRIU dumped: the last changes of the tree's files, its memory if CRIU has left it
// out, and CRIU's images.
func (s *source) sendRest(ctx context.Context) error {
	if err := s.lent.Carry(ctx, s.out.carry); err != nil {
		return errs.New(errs.KindOf(err), "carry files: %w", err)
	}
	if s.lazy() {
		if err := s.sendMemory(ctx); err != nil {
			return err
		}
	}
	path := filepath.Join(s.dir, "dump")
	entries, err := os.ReadDir(path)
	if err != nil {
		return errs.New(errs.Failed, "read images: %w", err)
	}
	for _, e := range entries {
		if !travels(e.Name()) {
			continue
		}
		f, err := os.Open(filepath.Join(path, e.Name()))
		if err != nil {
			return errs.New(errs.Failed, "read image: %w", err)
		}
		err = s.out.imageFile(f)
		f.Close()
		if err != nil {
			return errs.New(errs.KindOf(err), "send image %s: %w", e.Name(), err)
		}
	}
	return nil
}

// travels says whether a file of a dump is sent as a file: logs and statistics stay, pages go as spaces.
func travels(name string) bool {
	pages := strings.HasPrefix(name, "pagemap-") || strings.HasPrefix(name, "pages-")
	return filepath.Ext(name) == ".img" && !pages
}

// socketPair is a connected pair of stream sockets: the first for this process, the second for CRIU.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, errs.New(errs.Failed, "make a socket for the pages: %w", err)
	}
	for _, fd := range fds { // a smaller buffer than asked for only costs time
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, pagesBuffer)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // so that closing it ends a read
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, errs.New(errs.Failed, "make a socket for the pages: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pages"), os.NewFile(uintptr(fds[1]), "criu-pages"), nil
}
