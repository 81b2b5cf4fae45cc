package session

import (
	"context"
	"sync"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/journal"
	"drover/worker/session/rules"
	"drover/worker/tree"
)

// takeUpWithin is for how long Recover waits for trees to be found. Those that take longer are waited for by nobody else.
const takeUpWithin = 2 * time.Second

// Recover takes up the sessions of a journal: the worker has been restarted while keepers went on holding. It decides nothing
// that had not been decided. Verdicts that had come and were not carried out are carried out now; what is held without one
// stays held; a source that had not been frozen gets its tree back; a target that had not rebuilt its tree gives up its place.
// All are taken up beside each other. One of which cannot be said what is here (its keeper does not answer, say) is tried again until it
// can be, after Recover has returned too, and is not spoken for meanwhile (session.ready). Call it once, before any other method.
func (r *Registry) Recover(ctx context.Context, records []journal.Record) error {
	pasts, err := rules.Replay(records)
	if err != nil {
		return err
	}
	var first sync.WaitGroup // attempts
	for _, p := range pasts {
		s := newSession(r, p.Req)
		s.heard = time.Time{} // ask for its verdict at once
		close(s.worked)
		over := p.Over() != ""
		if over {
			s.takeUp(r.ctx, p, nil, nil)
			close(s.opened)
		} else {
			s.notYet(errs.New(errs.Unavailable, "its worker has just been restarted"))
		}
		r.mu.Lock()
		r.add(s)
		r.mu.Unlock()
		if p.Ruling.Verdict != migration.Undecided {
			r.seen(p.Req.Spec.Name, p.Ruling.Epoch)
		}
		if !over {
			first.Add(1)
			r.takingUp.Go(func() { r.takeUp(s, p, first.Done) })
		}
	}
	if err := r.compact(); err != nil { // a full disk keeps no worker from its trees
		r.cfg.Log.Warn("journal not shortened", "error", err)
	}
	all := make(chan struct{})
	go func() { first.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(takeUpWithin):
	case <-ctx.Done():
		return ctx.Err()
	}
	return r.sweepImages()
}

// takeUp takes a session up as soon as it can be said what is here of it; tried is called after the first attempt.
func (r *Registry) takeUp(s *session, p *rules.Past, tried func()) {
	tried = sync.OnceFunc(tried)
	defer tried()
	said := ""
	untilOver(r.ctx, 0, func() (over bool) {
		ctx, cancel := context.WithTimeout(r.ctx, actTimeout)
		defer cancel()
		lent, shell, err := r.cfg.Trees.Find(ctx, p.Req.Migration)
		if err == nil || errs.KindOf(err) == errs.NotFound {
			r.takeUpFound(s, p, lent, shell)
			return true
		}
		// Nothing is known of its tree: not even that it is held.
		s.notYet(err)
		if text := err.Error(); text != said && r.ctx.Err() == nil {
			said = text
			s.log.Error("a migration cannot be taken up yet: nothing is decided for it, and it is tried again", "error", err, "next", errs.NextOf(err))
		}
		tried()
		return false
	})
	if said == "" || r.ctx.Err() != nil {
		return
	}
	s.log.Info("a migration has been taken up at last", "step", s.facts().Step)
	if err := r.sweepImages(); err != nil { // Recover has looked before
		s.log.Error("images not looked through", "error", err)
	}
}

// takeUpFound takes a session up whose tree and place are those, nil if they are not here any more, and carries out the verdict that had come.
func (r *Registry) takeUpFound(s *session, p *rules.Past, lent tree.Lent, shell tree.Shell) {
	ctx, free, err := s.act(r.ctx)
	if err != nil { // the worker ends
		return
	}
	s.takeUp(ctx, p, lent, shell)
	free()
	if p.Ruling.Verdict != migration.Undecided && !s.facts().Ruled {
		if _, err := r.rule(r.ctx, s, p.Ruling.Verdict, p.Ruling.Epoch); err != nil {
			s.log.Error("verdict not carried out after the restart; a coordinator will deliver it again", "verdict", p.Ruling.Verdict, "error", err)
		}
	}
	s.opens()
}

// notYet says why a session cannot be taken up at the moment.
func (s *session) notYet(err error) {
	why := errs.New(errs.Unavailable, "migration %s of %s cannot be taken up on %s yet: %w", s.req.Migration, s.req.Spec.Name, s.host.cfg.Host, err)
	if why.Next == "" {
		why = why.WithNext("see the worker's log on %s: it goes on by itself when this has been mended", s.host.cfg.Host)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = why
}

// opens lets calls to a session that has been taken up through.
func (s *session) opens() {
	s.mu.Lock()
	s.waits = nil
	s.mu.Unlock()
	close(s.opened)
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
func (s *session) takeUp(ctx context.Context, p *rules.Past, lent tree.Lent, shell tree.Shell) {
	var found rules.Found
	switch {
	case p.Req.Role == migration.Source && lent != nil:
		found = rules.Found{Tree: true, Hold: lent.Hold() != nil}
	case p.Req.Role == migration.Target && shell != nil:
		found = rules.Found{Tree: true, Hold: shell.Hold() != nil}
	}
	up := rules.TakeUp(p, found)
	s.diary.state = up.Session
	if up.Why != "" {
		s.failed = s.why(up.Why)
	}
	s.takenUp = "taken up after a restart"
	defer func() { s.takenUp = "" }()
	switch {
	case !found.Tree:
		s.side = gone{s}
	case p.Req.Role == migration.Source:
		resumeSource(ctx, s, lent, p, up.Program)
		return
	default:
		resumeTarget(ctx, s, shell, p, up.Program)
		return
	}
	s.tryAll(ctx, up.Program)
}

// why is the reason for which a session that is taken up cannot go on, for people.
func (s *session) why(w rules.Why) *errs.Error {
	err := errs.New(errs.Failed, "migration %s of %s on %s: %s", s.req.Migration, s.req.Spec.Name, s.host.cfg.Host, w)
	switch w {
	case rules.WhileCopying, rules.BeforeHeld:
		return err.WithNext("migrate again")
	case rules.ReleaseLost:
		return errs.New(errs.Failed, "%w: %w", err, engine.ErrLost)
	}
	return err
}

func resumeSource(ctx context.Context, s *session, lent tree.Lent, p *rules.Past, program rules.Program) {
	src := newSource(s)
	s.side, src.lent, src.hold = src, lent, lent.Hold()
	if s.diary.state.Holds && s.diary.state.FrozenAt.IsZero() {
		src.setFrozen(time.Now())
	}
	err := src.resume(ctx, p, program)
	if err == nil {
		return
	}
	// One tree keeps no worker from the others. Coordinators hear why, and so do people.
	s.log.Error("a tree could not be taken up as it should; this is tried again", "error", err)
	why := s.failed
	if why == nil {
		why = err
	}
	s.failed = errs.New(errs.KindOf(why), "%w; taking it up has failed and is tried again: %w", why, err).WithNext("see the worker's log on %s", s.host.cfg.Host)
	s.tryAll(ctx, rules.Program{rules.TellFailed})
	go src.resumeAgain(s.host.ctx, p, program)
}

// resume does what is to be done with a source's tree after a restart.
func (s *source) resume(ctx context.Context, p *rules.Past, program rules.Program) error {
	if p.Throttled != nil { // it was not frozen but for pulses, then: it is given back below
		if err := s.lent.Unthrottle(p.Throttled.Before); err != nil {
			return errs.New(errs.KindOf(err), "give the tree its time back: %w", err)
		}
		p.Throttled = nil
	}
	op, err := s.run(ctx, program)
	if op == rules.DropImages { // the tree runs as before, and coordinators are told; the sweep tries again
		s.tryAll(ctx, rules.Program{rules.TellFailed})
		return nil
	}
	return err
}

// resumeAgain is resume from the second attempt on, until it has been done or a verdict asks for it.
func (s *source) resumeAgain(ctx context.Context, p *rules.Past, program rules.Program) {
	untilOver(ctx, againAfter, func() (over bool) {
		own, free, err := s.act(ctx)
		if err != nil {
			return true
		}
		defer free()
		left := s.facts().Again(program)
		if err := s.resume(own, p, left); err != nil {
			return false
		}
		if len(left) > 0 {
			s.change("taken up as it should be, at last", func(*workerapi.SessionState) {})
		}
		return true
	})
}

// againAfter is how long after an attempt to take up a session the next one begins.
const againAfter = time.Second

// untilOver calls f, the first time after that long, until it says that it is over or ctx is done.
func untilOver(ctx context.Context, after time.Duration, f func() (over bool)) {
	for {
		select { // nothing announces that it can be done
		case <-ctx.Done():
			return
		case <-time.After(after):
		}
		if f() {
			return
		}
		after = againAfter
	}
}

func resumeTarget(ctx context.Context, s *session, shell tree.Shell, p *rules.Past, program rules.Program) {
	t := newTarget(s)
	s.side, t.shell, t.hold = t, shell, shell.Hold()
	if p.Held != nil {
		t.pid, t.digest = p.Held.Pid, p.Held.Digest
	}
	filling, err := t.lookFilling()
	t.fills = !filling.Over && errs.KindOf(err) != errs.NotFound // else it is all there, or was in the images
	if t.fills && err != nil {
		t.filling = tree.Filling{All: 1} // as far as can be said; watchFilling finds out
	}
	s.tryAll(ctx, program)
	if t.fills && s.facts().Step == workerapi.StepReleased {
		go t.watchFilling(s.host.ctx)
	}
}

// gone is the side of a session of which nothing is left on this host.
type gone struct{ *session }

func (gone) work(context.Context) error { return nil }

func (g gone) do(_ context.Context, op rules.Op) error {
	switch op {
	case rules.Deny:
		return errs.New(errs.Failed, "nothing of it is left here: %w", engine.ErrLost)
	case rules.Mourn: // the session takes note of it
		return nil
	}
	return errs.New(errs.Failed, "nothing of migration %s is left here to %s", g.req.Migration, op)
}

func (gone) look(*workerapi.SessionState) {}
