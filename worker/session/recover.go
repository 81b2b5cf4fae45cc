package session

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/journal"
	"drover/worker/tree"
)

// Recover takes up the sessions of a journal: the worker has been restarted while keepers went on holding. It decides nothing
// that had not been decided. Verdicts that had come and were not carried out are carried out now; what is held without one
// stays held; a source that had not been frozen gets its tree back; a target that had not rebuilt its tree gives up its place.
// Call it once, before any other method.
func (r *Registry) Recover(ctx context.Context, records []journal.Record) error {
	pasts, err := replay(records)
	if err != nil {
		return err
	}
	for _, p := range pasts {
		s := newSession(r, p.req)
		s.heard = time.Time{} // ask for its verdict at once
		close(s.opened)
		close(s.worked)
		if err := r.takeUp(ctx, s, p); err != nil {
			return errs.New(errs.KindOf(err), "take up migration %s of %s: %w", p.req.Migration, p.req.Spec.Name, err)
		}
		r.mu.Lock()
		r.add(s)
		r.mu.Unlock()
		if p.ruling.Verdict != migration.Undecided {
			r.seen(p.req.Spec.Name, p.ruling.Epoch)
		}
		if p.over() == "" && p.ruling.Verdict != migration.Undecided && !p.ruled {
			if _, err := r.rule(ctx, s, p.ruling.Verdict, p.ruling.Epoch); err != nil {
				s.log.Error("verdict not carried out after the restart; a coordinator will deliver it again", "verdict", p.ruling.Verdict, "error", err)
			}
		}
	}
	return errors.Join(r.compact(), r.sweepImages())
}

// compact drops from the journal what no session known here needs. A session is known before it writes its first record.
func (r *Registry) compact() error {
	return r.cfg.Journal.Compact(func(rec journal.Record) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.sessions[rec.Migration] != nil
	})
}

// takeUp gives a session the side and the state that its past and what the keeper still holds add up to.
func (r *Registry) takeUp(ctx context.Context, s *session, p *past) error {
	s.diary.state.Verdict, s.done = p.ruling.Verdict, p.ruled
	if step := p.over(); step != "" {
		s.side = gone{p}
		s.reach(step, "")
		return nil
	}
	lent, shell, err := r.cfg.Trees.Find(ctx, p.req.Migration)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return err
	}
	switch {
	case p.req.Role == migration.Source && lent != nil:
		return resumeSource(ctx, s, lent, p)
	case p.req.Role == migration.Target && shell != nil:
		return resumeTarget(ctx, s, shell, p)
	}
	s.side = gone{p}
	s.giveNotice(errs.New(errs.Failed, "%s has nothing of migration %s of %s any more: it was never begun, or the host has been restarted",
		r.cfg.Host, p.req.Migration, p.req.Spec.Name))
	return nil
}

// giveNotice is fail for a session that is being taken up, whatever its verdict.
func (s *session) giveNotice(err error) {
	s.failed = err
	s.log.Warn("session cannot go on", "error", err)
	s.change(err.Error(), func(st *workerapi.SessionState) { failure(st, err) })
}

func resumeSource(ctx context.Context, s *session, lent tree.Lent, p *past) error {
	src := newSource(s)
	s.side, src.lent, src.hold = src, lent, lent.Hold()
	if p.frozen != nil {
		src.frozenAt = p.frozen.At
	}
	if p.throttled != nil { // it was not frozen but for pulses, then: it is given back below
		if err := lent.Unthrottle(p.throttled.Before); err != nil {
			return err
		}
	}
	switch {
	case p.ruling.Verdict == migration.Commit:
		s.reach(workerapi.StepStaged, "taken up after a restart")
	case p.frozen != nil && src.hold == nil:
		// The target may have all of it: until the verdict nothing may run here, whoever has let go of the tree.
		if err := lent.Freeze(ctx); err != nil {
			return errs.New(errs.KindOf(err), "keep the tree frozen: %w", err)
		}
		if err := lent.Fence(ctx); err != nil {
			return errs.New(errs.KindOf(err), "keep the tree's address hidden: %w", err)
		}
		s.giveNotice(errs.New(errs.Failed, "the keeper of %s has lost its hold; the tree stays frozen until the verdict", p.req.Spec.Name))
	case p.frozen != nil:
		s.reach(workerapi.StepFrozen, "taken up after a restart")
	case p.freezing && src.hold != nil:
		src.frozenAt = time.Now()
		s.giveNotice(errs.New(errs.Failed, "the worker of %s was restarted while it sent the rest of %s", s.host.cfg.Host, p.req.Spec.Name))
	default:
		if err := src.undone(ctx, migration.Abort, p.req.Epoch); err != nil {
			return err
		}
		s.giveNotice(errs.New(errs.Failed, "the worker of %s was restarted while it copied %s, which runs on", s.host.cfg.Host, p.req.Spec.Name).
			WithNext("migrate again"))
	}
	return nil
}

func resumeTarget(ctx context.Context, s *session, shell tree.Shell, p *past) error {
	t := newTarget(s)
	s.side, t.shell, t.hold = t, shell, shell.Hold()
	if p.held != nil {
		t.pid = p.held.Pid
	}
	t.ran = p.committed // it was on the disk before the tree was let go
	filling, err := t.lookFilling()
	fills := !filling.Over && errs.KindOf(err) != errs.NotFound // else it is all there, or was in the images
	if fills && err != nil {
		t.filling = tree.Filling{All: 1} // as far as can be said; watchFilling finds out
	}
	switch {
	case p.ruling.Verdict == migration.Commit && p.ruled:
		s.reach(workerapi.StepReleased, "taken up after a restart")
		go t.probation(s.host.ctx)
		if fills {
			go t.watchFilling(s.host.ctx)
		}
	case p.held != nil && t.hold != nil:
		s.reach(workerapi.StepHeld, "taken up after a restart")
		go t.watchHold(s.host.ctx)
		if fills {
			go t.watchFilling(s.host.ctx)
		}
	case p.ruling.Verdict == migration.Commit:
		// It may have run or may not: nobody can say. Made surely dead, the source can be brought back; it is still held, for
		// nobody has heard of a release.
		t.swept(ctx)
		t.exit = int(unix.SIGKILL)
		s.giveNotice(errs.New(errs.Failed, "the keeper of %s has lost its hold just when it was released, and the copy was killed: %w", p.req.Spec.Name, engine.ErrLost))
	default:
		t.swept(ctx)
		s.giveNotice(errs.New(errs.Failed, "the worker of %s was restarted before %s was held; nothing of it has run here", s.host.cfg.Host, p.req.Spec.Name).
			WithNext("migrate again"))
	}
	return nil
}

// gone is the side of a session of which nothing is left on this host: any verdict has been done.
type gone struct{ past *past }

func (gone) work(context.Context) error { return nil }
func (gone) swept(context.Context)      {}

func (gone) released(context.Context) error {
	return errs.New(errs.Failed, "nothing of it is left here: %w", engine.ErrLost)
}

func (gone) undone(context.Context, migration.Verdict, migration.Epoch) error { return nil }
func (gone) confirmed(context.Context) error                                  { return nil }

// look knows two things: without a commit on the disk nothing was ever let run, and what the disk says was frozen has not run since.
func (g gone) look(st *workerapi.SessionState) {
	st.NeverRan = st.Role == migration.Target && !g.past.committed
	if g.past.frozen != nil {
		st.FrozenAt = g.past.frozen.At
	}
}
