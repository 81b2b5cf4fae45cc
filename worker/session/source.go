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
	"drover/worker/session/rules"
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
	noted    chan error     // how writing WriteFrozen ended
	changed  *track.Changes // since the freeze, as far as the tracker can say
	whole    bool           // the engine cannot leave this tree's memory out of a dump
	aside    *aside         // from COMMIT on; nil if nothing of the tree is kept here

	mayFreeze chan struct{} // closed by CutOver
	once      sync.Once

	thawedAt time.Time // when it ran again; guarded by the session's lock
}

func newSource(s *session) *source {
	return &source{
		session: s, limits: limitsOf(s.req.Options), final: s.facts().Final,
		mayFreeze: make(chan struct{}), noted: make(chan error, 1), dir: s.host.imagesOf(s.req.Migration),
	}
}

// lend borrows the tree.
func (s *source) lend(ctx context.Context) (err error) {
	if s.lent, err = s.host.cfg.Trees.Lend(ctx, s.req.Spec.Name, s.req.Epoch, s.req.Migration); err != nil {
		return errs.New(errs.KindOf(err), "lend the tree: %w", err)
	}
	return nil
}

// connect looks for a way to find the tree's dirty pages and connects to the target.
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
	s.diary.state.Progress.PagesKept = s.out.Progress().PagesKept
	s.diary.state.Progress.Tracker, s.diary.state.Progress.Compression = s.tracker.Name(), s.req.Options.Compression
	return nil
}

// work copies while the tree runs, freezes it when it may and sends the rest.
func (s *source) work(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.out.cut)()
	copied := s.host.cfg.Nice.Copy()
	defer copied()
	if s.req.DryRun {
		return s.rehearse(ctx)
	}
	if _, err := s.run(ctx, rules.Copying); err != nil {
		return err
	}
	copied()
	defer s.host.cfg.Nice.Hurry()()
	if err := s.freeze(ctx); err != nil {
		return err
	}
	return s.stage(ctx)
}

// do does an op of rules' programs.
func (s *source) do(ctx context.Context, op rules.Op) error {
	switch op {
	case rules.Lend:
		return s.lend(ctx)
	case rules.Connect:
		return s.connect(ctx)
	case rules.Copy:
		return s.copyRounds(ctx)
	case rules.Dump:
		return s.dumpAndHold(ctx)
	case rules.WriteFrozen: // while the rest is sent
		at := s.facts().FrozenAt
		go func() { s.noted <- s.write(op, rules.Frozen{At: at}) }()
	case rules.AwaitFrozen:
		return s.sendingRest(<-s.noted)
	case rules.SendRest:
		return s.sendingRest(s.sendRest(ctx))
	case rules.Finish:
		return s.finish(ctx)
	case rules.TellFrozen, rules.TellStaged:
		s.say(op, s.takenUp)
	case rules.StopCopying:
		s.letGo()
	default:
		return s.settle(ctx, op)
	}
	return nil
}

// settle does an op that a verdict or a restart asks for.
func (s *source) settle(ctx context.Context, op rules.Op) (err error) {
	switch op {
	case rules.AnswerNo:
		if s.hold != nil {
			err = s.hold.Abort(ctx)
		}
	case rules.Unfence:
		err = s.lent.Unfence(ctx)
	case rules.Thaw:
		if err = s.lent.Thaw(ctx); err == nil {
			s.mark(func(*rules.Session) { s.thawedAt = time.Now() })
		}
	case rules.Return:
		s.host.Forget(s.req.Spec.Name) // what was put aside: the tree goes on here
		err = s.lent.Return(ctx, max(s.ruled().Epoch, s.req.Epoch))
	case rules.EndTree:
		err = engine.ErrLost // no hold: the keeper has lost it, the tree's cgroup still keeps it from running
		if s.hold != nil {
			_, err = s.hold.Commit(ctx)
		}
	case rules.Kill:
		err = s.lent.Engine().Kill(ctx, s.lent.Tree())
	case rules.Freeze:
		err = s.lent.Freeze(ctx)
	case rules.Fence:
		err = s.lent.Fence(ctx)
	case rules.Leave:
		err = s.lent.Leave(ctx, s.final)
	case rules.DropImages:
		return removeImages(s.dir)
	default:
		return errs.New(errs.Failed, "a source cannot %s", op)
	}
	if err != nil {
		return errs.New(errs.KindOf(err), "%s: %w", doing[op], err)
	}
	return nil
}

// doing says in errors what an op was about.
var doing = map[rules.Op]string{
	rules.AnswerNo: "resume the tree", rules.Unfence: "show the tree's address again", rules.Thaw: "thaw the tree", rules.Return: "return the tree",
	rules.EndTree: "end the tree's hold", rules.Kill: "kill the tree", rules.Freeze: "keep the tree frozen", rules.Fence: "keep the tree's address hidden",
	rules.Leave: "leave the tree",
}

// allowFreeze is CutOver.
func (s *source) allowFreeze(epoch migration.Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.diary.state
	if st.Step == workerapi.StepFailed && s.failed != nil {
		return errs.New(errs.KindOf(s.failed), "migration %s of %s has failed: %w", st.Migration, st.Workload, s.failed)
	}
	if err := st.CutOver(epoch); err != nil {
		return err
	}
	s.once.Do(func() { close(s.mayFreeze) })
	return nil
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
		_, err := s.run(ctx, rules.Freezing)
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

// dumpAndHold dumps the tree once, and returns while it is held. With an error it runs on, unless the session says that it Holds: then it could
// not be undone.
func (s *source) dumpAndHold(ctx context.Context) error {
	s.host.bandwidth.leave(s.req.Migration)
	s.setLimit(0)
	hold, err := s.dump(ctx)
	s.hold = hold
	s.mark(func(st *rules.Session) { st.Holds = hold != nil })
	if err != nil {
		if hold == nil {
			s.setFrozen(time.Time{})
		}
		return errs.New(errs.KindOf(err), "dump %s: %w", s.req.Spec.Name, err)
	}
	if f := hold.Stats().Frozen; f > 0 {
		s.setFrozen(time.Now().Add(-f))
	}
	return nil
}

// setFrozen says since when the tree has not run; the zero time says that it runs.
func (s *source) setFrozen(at time.Time) { s.mark(func(st *rules.Session) { st.Frozen(at) }) }

// stage sends what is left while the tree is held.
func (s *source) stage(ctx context.Context) error {
	op, err := s.run(ctx, rules.Staging)
	if op == rules.SendRest { // nothing more is written before it is
		err = errors.Join(err, <-s.noted)
	}
	return err
}

func (s *source) sendingRest(err error) error {
	if err != nil {
		return errs.New(errs.KindOf(err), "send the rest of %s: %w", s.req.Spec.Name, err)
	}
	return nil
}

// finish sends the last word, and returns when the target has said that it has all.
func (s *source) finish(ctx context.Context) error {
	at := s.facts().FrozenAt
	s.finalRound(at)
	digest, err := s.out.finish(ctx, rest{FrozenFor: time.Since(at)})
	if err != nil {
		return errs.New(errs.KindOf(err), "stage %s on %s: %w", s.req.Spec.Name, s.req.Target.Host, err)
	}
	s.mark(func(*rules.Session) { s.digest = digest })
	return nil
}

// letGo ends the stream, the tracker and whatever else reads the tree's memory; the tree does not notice.
func (s *source) letGo() {
	s.host.bandwidth.leave(s.req.Migration)
	s.aside.end()
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
	note := "it has no limit of its own"
	if bytesPerSecond > 0 {
		note = fmt.Sprintf("its own limit is %d bytes a second", bytesPerSecond)
	}
	s.change(note, func(st *workerapi.SessionState) { st.Progress.Bandwidth = bytesPerSecond })
}

// setLimit is what it may send, by its own limit and its host's.
func (s *source) setLimit(bytesPerSecond int64) {
	transfer.SetLimit(s.out.limiter, bytesPerSecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.diary.state.Progress.Limit = bytesPerSecond
}

func (s *source) look(st *workerapi.SessionState) {
	switch {
	case st.FrozenAt.IsZero():
		st.FrozenFor = 0
	case s.thawedAt.IsZero():
		st.FrozenFor = time.Since(st.FrozenAt)
	default:
		st.FrozenFor = s.thawedAt.Sub(st.FrozenAt)
	}
}
