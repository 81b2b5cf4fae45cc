package session

import (
	"context"
	"fmt"
	"time"

	"drover/internal/errs"
	workerapi "drover/worker/api"
	"drover/worker/session/rules"
)

// copyRounds makes rounds until CutOver comes, which it may once they have done what they can. Whatever way it ends, nothing is
// taken from the tree any more: what freezes it next is the dump, and what thaws it is a verdict.
func (s *source) copyRounds(ctx context.Context) (err error) {
	defer func() {
		if undo := s.unthrottle(ctx); undo != nil && err == nil {
			err = undo
		}
	}()
	if err := s.mayThrottle(); err != nil {
		return err
	}
	asked := false
	for c := (course{}); ; {
		if err := s.round(ctx); err != nil {
			return err
		}
		next, do := c.step(s.limits, s.laps, s.outlook())
		if do == giveUp {
			return s.tooLong(next)
		}
		if err := s.setThrottle(next.throttle); err != nil {
			return err
		}
		if c = next; do == ready && !asked {
			asked = true
			note := s.overBudget(c)
			s.change(note, func(st *workerapi.SessionState) { st.Step, st.Progress.Note = workerapi.StepReady, note })
		}
		granted, wait := s.mayFreeze, c.rest(s.limits, s.laps[len(s.laps)-1])
		if !asked || s.limits.strict && do != ready { // it was quiet when it asked, and is not any more
			granted = nil
		}
		if asked {
			wait = max(wait, lightRound)
		}
		select {
		case <-granted:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (s *source) outlook() outlook { return look(s.laps, s.progress().PagesTotal, s.reckoning()) }

// reckoning is costs, corrected by what past moves have taken.
func (s *source) reckoning() costs {
	c := s.costs()
	c.past = s.req.Past
	return c
}

// tooLong is why a source would rather not move, with the figures.
func (s *source) tooLong(c course) error {
	p := s.progress()
	tried := ""
	if c.waited > 0 {
		tried = fmt.Sprintf(" and %s of waiting for a quiet moment", c.waited.Round(time.Second))
	}
	if c.throttle > 0 {
		tried += fmt.Sprintf(", at last without %d %% of its time", c.throttle)
	}
	return errs.New(errs.Refused, "after %d rounds%s a cut-over of %s would take %s, at best %s, more than the %s allowed",
		p.Round, tried, s.req.Spec.Name, p.BlackoutGuess.Round(time.Millisecond), c.best.Round(time.Millisecond), s.limits.downtime).
		WithNext("allow more with --downtime, let it be slowed down with --policy must-move, or move it when it writes less (now %.0f pages a second)", p.DirtyRate)
}

// overBudget says why a cut-over that will take too long is asked for, "" if it will not.
func (s *source) overBudget(c course) string {
	guess := s.progress().BlackoutGuess
	if guess <= s.limits.downtime {
		return ""
	}
	tried := "the rounds could not make it less"
	if c.throttle > 0 {
		tried = fmt.Sprintf("taking %d %% of its time from the tree did not help enough", c.throttle)
	}
	return fmt.Sprintf("over the budget: %s expected, %s asked for; %s", guess.Round(time.Millisecond), s.limits.downtime, tried)
}

// mayThrottle prepares a throttle, if the user allows one. What time is taken later is a share of what the tree uses from now on.
func (s *source) mayThrottle() (err error) {
	if s.limits.throttle == 0 {
		return nil
	}
	if s.tracker.Name() == "softdirty" { // its rounds are CRIU's, which refuses a tree that a pulse has frozen
		s.limits.throttle = 0
		s.change("the tree cannot be slowed down: the softdirty tracker needs it unfrozen", func(*workerapi.SessionState) {})
		return nil
	}
	if s.throttle, err = s.lent.Throttle(); err != nil {
		return errs.New(errs.KindOf(err), "prepare to slow %s down: %w", s.req.Spec.Name, err)
	}
	return nil
}

// setThrottle takes that many percent of the tree's time from now on.
func (s *source) setThrottle(percent int) error {
	if percent == s.progress().Throttle {
		return nil
	}
	if !s.slowed {
		if err := s.write(rules.WriteThrottle, rules.Throttled{Before: s.throttle.Before()}); err != nil {
			return err
		}
		s.slowed = true
	}
	if err := s.throttle.Set(percent); err != nil {
		return errs.New(errs.KindOf(err), "slow %s down: %w", s.req.Spec.Name, err)
	}
	s.change(fmt.Sprintf("taking %d %% of its time from the tree, by %s", percent, s.throttle.How()), func(st *workerapi.SessionState) { st.Progress.Throttle = percent })
	return nil
}

// unthrottle gives the tree all of its time back and returns when it runs.
func (s *source) unthrottle(ctx context.Context) error {
	if !s.slowed {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTimeout)
	defer cancel()
	if err := s.throttle.End(ctx); err != nil {
		return errs.New(errs.KindOf(err), "let %s run as fast as before: %w", s.req.Spec.Name, err)
	}
	s.slowed = false
	s.tell(func(p *workerapi.Progress) { p.Throttle = 0 })
	return s.write(rules.WriteThrottled, nil)
}
