package session

import (
	"context"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/worker/session/rules"
)

// run carries out a program, op by op, to its end or to the op that fails.
func (s *session) run(ctx context.Context, p rules.Program) (rules.Op, error) {
	for _, op := range p {
		err := s.step(ctx, op)
		if err == nil {
			continue
		}
		var goesOn bool
		instead := s.giveUp(err, func(st *rules.Session) (p rules.Program) {
			p, goesOn = st.Else(op, err)
			return p
		})
		if !goesOn {
			s.tryAll(ctx, instead)
			return op, err
		}
		s.log.Warn("done another way", "op", op.String(), "error", err)
		if op, err := s.run(ctx, instead); err != nil {
			return op, err
		}
	}
	return 0, nil
}

// tryAll carries out what is tried to the end, whatever fails of it and whoever has lost patience.
func (s *session) tryAll(ctx context.Context, p rules.Program) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTimeout)
	defer cancel()
	for _, op := range p {
		if err := s.step(ctx, op); err != nil {
			s.log.Error("not done", "op", op.String(), "error", err)
		}
	}
}

func (s *session) step(ctx context.Context, op rules.Op) error {
	s.halt(op)
	s.mark(func(st *rules.Session) { st.Begin(op) })
	if err := s.do(ctx, op); err != nil {
		return err
	}
	s.mark(func(st *rules.Session) { st.Done(op, s.ruling.Verdict) })
	return nil
}

// do does an op that is the same on both sides.
func (s *session) do(ctx context.Context, op rules.Op) error {
	switch op {
	case rules.EndWork:
		s.stop()
		return s.workOver(ctx)
	case rules.AwaitWork:
		return s.workOver(ctx)
	case rules.WriteOpen:
		return s.write(op, remembered(s.req))
	case rules.WriteVerdict, rules.WriteRuled:
		return s.write(op, s.ruled())
	case rules.WriteEnded: // ended before it began
		return s.write(op, rules.Ruling{Verdict: migration.Abort, Epoch: s.req.Epoch})
	case rules.WriteOpened, rules.WriteFreeze, rules.WriteThawed, rules.WriteHold, rules.WriteConfirm, rules.WriteConfirmed:
		return s.write(op, nil)
	case rules.TellOpen:
		s.say(op, "opened")
	case rules.TellVerdict:
		s.say(op, "verdict "+string(s.ruled().Verdict))
	case rules.TellUndone, rules.TellDone:
		s.say(op, "")
		s.host.giveBack()
	case rules.TellFailed:
		s.sayFailed()
	default:
		return s.side.do(ctx, op)
	}
	return nil
}

// ruled is the verdict that is being acted on.
func (s *session) ruled() rules.Ruling {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ruling
}

// sayFailed tells coordinators why the session cannot go on.
func (s *session) sayFailed() {
	s.mu.Lock()
	err := s.failed
	s.mu.Unlock()
	s.log.Error("session failed", "error", err)
	s.event(err.Error(), func(st *rules.Session) {
		st.Done(rules.TellFailed, st.Verdict)
		st.Error, st.Next, st.Kind = err.Error(), errs.NextOf(err), errs.KindOf(err).String()
	})
}

// say tells coordinators that op's step has been reached.
func (s *session) say(op rules.Op, note string) {
	s.event(note, func(st *rules.Session) {
		st.Done(op, s.ruling.Verdict)
		if s.digest != "" {
			st.Digest = s.digest
		}
	})
}

// write writes an op's record into the journal.
func (s *session) write(op rules.Op, data any) error {
	r, err := op.Record(s.req.Migration, data)
	if err != nil {
		return err
	}
	return s.host.cfg.Journal.Append(r)
}
