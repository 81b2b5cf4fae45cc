package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"drover/engine"
	"drover/engine/track"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/transfer"
	workerapi "drover/worker/api"
	"drover/worker/tree"
)

// source is the side that has the tree and gives it up only when a verdict says so.
type source struct {
	*session
	limits limits
	final  migration.FinalState
	lent   tree.Lent
	dir    string // of this migration, in memory

	tracker  track.Tracker
	laps     []lap         // finished rounds, the newest
	lookedAt time.Time     // when the last round began,
	looked   int           // and what was then taken of the tree's time
	throttle tree.Throttle // nil unless the user allows it
	slowed   bool          // the journal says that it may be in force
	out      *outgoing
	hold     engine.Hold    // from the freeze on; nil while the tree runs
	changed  *track.Changes // since the freeze, as far as the tracker can say
	whole    bool           // the engine cannot leave this tree's memory out of a dump
	returned bool           // the tree has been given back

	mayFreeze chan struct{} // closed by CutOver
	once      sync.Once

	// guarded by the session's lock
	frozenAt time.Time
	thawedAt time.Time // when it ran again
}

// frozen is what must be known of a frozen tree after a restart.
type frozen struct {
	At time.Time `json:"at"`
}

func newSource(s *session) *source {
	src := &source{session: s, mayFreeze: make(chan struct{}), dir: s.host.imagesOf(s.req.Migration)}
	src.limits = limitsOf(s.req.Options)
	src.final, _ = outcomes(migration.Source, s.req.Options) // has been checked
	return src
}

// openSource borrows the tree, looks for a way to find its dirty pages and connects to the target.
func openSource(ctx context.Context, s *session) (side, error) {
	src := newSource(s)
	var err error
	if src.lent, err = s.host.cfg.Trees.Lend(ctx, s.req.Spec.Name, s.req.Epoch, s.req.Migration); err != nil {
		return nil, errs.New(errs.KindOf(err), "lend the tree: %w", err)
	}
	if err = src.connect(ctx); err != nil {
		src.letGo()
		if back := src.lent.Return(context.WithoutCancel(ctx), s.req.Epoch); back != nil {
			s.log.Error("tree not returned", "error", back)
		}
		return nil, err
	}
	return src, nil
}

func (s *source) connect(ctx context.Context) error {
	rounds := filepath.Join(s.dir, "rounds")
	if err := os.MkdirAll(rounds, 0o700); err != nil {
		return errs.New(errs.Failed, "make image directory: %w", err)
	}
	var err error
	if s.tracker, err = s.host.cfg.Tracker(ctx, s.req.Options.Tracker, s.lent, rounds); err != nil {
		return errs.New(errs.KindOf(err), "track dirty pages: %w", err)
	}
	if s.out, err = s.newOutgoing(ctx, s.host.ctx); err != nil {
		return err
	}
	own := max(0, s.req.Options.Resolved().Bandwidth)
	s.host.bandwidth.join(s.req.Migration, own, s.setLimit)
	s.diary.state.Progress.Bandwidth = own
	s.diary.state.Progress.Tracker, s.diary.state.Progress.Compression = s.tracker.Name(), s.req.Options.Compression
	return nil
}

// work copies while the tree runs, freezes it when it may and sends the rest.
func (s *source) work(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.out.cut)()
	if s.req.DryRun {
		return s.rehearse(ctx)
	}
	if err := s.copyRounds(ctx); err != nil {
		return err
	}
	if err := s.freeze(ctx); err != nil {
		return err
	}
	return s.stage(ctx)
}

// allowFreeze is CutOver.
func (s *source) allowFreeze(epoch migration.Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.diary.state
	switch {
	case st.DryRun:
		return errs.New(errs.Conflict, "%s is a dry run: nothing is frozen in it", st.Migration)
	case epoch != st.Epoch:
		return errs.New(errs.Conflict, "cut-over of migration %s came with epoch %s where it is %s", st.Migration, epoch, st.Epoch)
	case st.Verdict != migration.Undecided && st.Verdict != migration.Commit:
		return errs.New(errs.Conflict, "migration %s of %s has had the verdict %s", st.Migration, st.Workload, st.Verdict)
	}
	switch st.Step {
	case workerapi.StepReady, workerapi.StepFrozen, workerapi.StepStaged, workerapi.StepDone:
		s.once.Do(func() { close(s.mayFreeze) })
		return nil
	case workerapi.StepFailed:
		return errs.New(errs.KindOf(s.failed), "migration %s of %s has failed: %w", st.Migration, st.Workload, s.failed)
	}
	return errs.New(errs.Conflict, "migration %s of %s is not ready to freeze: its source is %s", st.Migration, st.Workload, st.Step)
}

// A tree that cannot be dumped at the moment, because a connection waits to be accepted, say, runs on for momentPause before it
// is tried again, at most moments times.
const (
	moments     = 8
	momentPause = 50 * time.Millisecond
)

// freeze dumps the tree and returns while it is held. A dump that did not come to its hold leaves the tree running, and so
// does freeze.
func (s *source) freeze(ctx context.Context) error {
	for try := 1; ; try++ {
		err := s.tryFreeze(ctx)
		if !errors.Is(err, engine.ErrMoment) || !s.lazy() || try == moments { // else pages may have been mapped, which they are once
			return err
		}
		s.change(fmt.Sprintf("frozen %d times in vain: %s", try, err), func(*workerapi.SessionState) {})
		select {
		case <-time.After(momentPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryFreeze dumps the tree once.
func (s *source) tryFreeze(ctx context.Context) error {
	if err := s.will(stepFreeze, nil); err != nil {
		return err
	}
	s.host.bandwidth.leave(s.req.Migration)
	s.setLimit(0)
	hold, err := s.dump(ctx)
	s.hold = hold
	if err != nil && hold != nil { // could not be undone: stays held until the verdict, which can only be Abort
		return errs.New(errs.KindOf(err), "dump %s: %w", s.req.Spec.Name, err)
	}
	if err != nil {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTimeout)
		defer cancel()
		if undo := s.lent.Unfence(back); undo != nil {
			s.log.Error("address still fenced", "error", undo)
		}
		s.setFrozen(time.Time{})
		if undo := s.did(stepThaw, nil); undo != nil {
			s.log.Error("journal does not say that the tree runs again", "error", undo)
		}
		return errs.New(errs.KindOf(err), "dump %s: %w", s.req.Spec.Name, err)
	}
	if f := hold.Stats().Frozen; f > 0 {
		s.setFrozen(time.Now().Add(-f))
	}
	s.reach(workerapi.StepFrozen, "")
	return nil
}

// setFrozen says since when the tree has not run; the zero time says that it runs.
func (s *source) setFrozen(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozenAt = at
}

// stage sends what is left while the tree is held. Nothing tells the target that it has all before the journal knows that a
// tree is held here.
func (s *source) stage(ctx context.Context) error {
	s.mu.Lock()
	at := s.frozenAt
	s.mu.Unlock()
	written := make(chan error, 1)
	go func() { written <- s.did(stepFreeze, frozen{at}) }()
	err := s.sendRest(ctx)
	if noted := <-written; err == nil {
		err = noted
	}
	if err != nil {
		return errs.New(errs.KindOf(err), "send the rest of %s: %w", s.req.Spec.Name, err)
	}
	s.finalRound(at)
	digest, err := s.out.finish(ctx, rest{FrozenFor: time.Since(at)})
	if err != nil {
		return errs.New(errs.KindOf(err), "stage %s on %s: %w", s.req.Spec.Name, s.req.Target.Host, err)
	}
	s.change("", func(st *workerapi.SessionState) { st.Step, st.Digest = workerapi.StepStaged, digest })
	return nil
}

// swept ends what belongs to copying. A held tree stays held: only a verdict ends that.
func (s *source) swept(context.Context) { s.letGo() }

// released notes a Commit.
func (s *source) released(context.Context) error { return nil }

// undone lets the tree run on here, exactly as it was.
func (s *source) undone(ctx context.Context, _ migration.Verdict, epoch migration.Epoch) error {
	s.letGo()
	if s.returned {
		return s.clean()
	}
	if s.hold != nil {
		if err := s.hold.Abort(ctx); err != nil {
			return errs.New(errs.KindOf(err), "resume the tree: %w", err)
		}
	}
	if err := s.lent.Unfence(ctx); err != nil {
		return errs.New(errs.KindOf(err), "show the tree's address again: %w", err)
	}
	if err := s.lent.Thaw(ctx); err != nil {
		return errs.New(errs.KindOf(err), "thaw the tree: %w", err)
	}
	s.mu.Lock()
	s.thawedAt = time.Now()
	s.mu.Unlock()
	return s.giveBack(ctx, epoch)
}

// giveBack ends the loan of a tree that runs.
func (s *source) giveBack(ctx context.Context, epoch migration.Epoch) error {
	if !s.returned {
		if err := s.lent.Return(ctx, epoch); err != nil {
			return errs.New(errs.KindOf(err), "return the tree: %w", err)
		}
		s.returned = true
	}
	return s.clean()
}

// confirmed gives the tree its final state: it lives elsewhere.
func (s *source) confirmed(ctx context.Context) error {
	s.letGo()
	if err := s.finish(ctx); err != nil {
		return err
	}
	if err := s.lent.Leave(ctx, s.final); err != nil {
		return errs.New(errs.KindOf(err), "leave the tree: %w", err)
	}
	return s.clean()
}

func (s *source) finish(ctx context.Context) error {
	err := engine.ErrLost // no hold: the keeper has lost it, the tree's cgroup still keeps it from running
	if s.hold != nil {
		_, err = s.hold.Commit(ctx)
	}
	switch {
	case err == nil:
		return nil
	case s.final == migration.Dead:
		s.log.Warn("hold not ended by its engine: killing the tree", "error", err)
		return s.lent.Engine().Kill(ctx, s.lent.Tree())
	}
	s.log.Warn("hold not ended by its engine: the tree stays frozen instead of stopped", "error", err)
	return s.lent.Freeze(ctx)
}

// letGo ends the stream and the tracker; the tree does not notice.
func (s *source) letGo() {
	s.host.bandwidth.leave(s.req.Migration)
	if s.out != nil {
		s.out.cut()
		s.out.Close()
	}
	if s.tracker != nil {
		if err := s.tracker.Close(); err != nil {
			s.log.Warn("tracker not detached", "error", err)
		}
		s.tracker = nil
	}
}

// limit sets the migration's own limit.
func (s *source) limit(bytesPerSecond int64) {
	s.host.bandwidth.limit(s.req.Migration, bytesPerSecond)
	s.change(fmt.Sprintf("its own limit is %d bytes a second", bytesPerSecond), func(st *workerapi.SessionState) { st.Progress.Bandwidth = bytesPerSecond })
}

// setLimit is what it may send, by its own limit and its host's.
func (s *source) setLimit(bytesPerSecond int64) {
	transfer.SetLimit(s.out.limiter, bytesPerSecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.diary.state.Progress.Limit = bytesPerSecond
}

func (s *source) look(st *workerapi.SessionState) {
	st.FrozenAt = s.frozenAt
	switch {
	case s.frozenAt.IsZero():
	case s.thawedAt.IsZero():
		st.FrozenFor = time.Since(s.frozenAt)
	default:
		st.FrozenFor = s.thawedAt.Sub(s.frozenAt)
	}
}
