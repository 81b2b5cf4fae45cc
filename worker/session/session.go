package session

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/worker/journal"

	workerapi "drover/worker/api"
)

// actTimeout bounds an act that a verdict demands, for the case that a kernel or CRIU hangs; the call may be repeated.
const actTimeout = 60 * time.Second

// side is what a source and a target do differently. Only one of its methods runs at a time but look, and work is over
// before any other begins, except note.
type side interface {
	// work goes as far as may be gone without a verdict. Its error makes the session fail, unless a verdict has come.
	work(ctx context.Context) error
	// swept undoes, after work has failed, what need not wait for the verdict. It leaves a held source held.
	swept(ctx context.Context)
	// released acts on Commit.
	released(ctx context.Context) error
	// undone acts on Abort and Reclaim, at the epoch the workload then has.
	undone(ctx context.Context, v migration.Verdict, epoch migration.Epoch) error
	// confirmed acts on the confirmation of a Commit.
	confirmed(ctx context.Context) error
	// look fills in what changes without an event. It is called with the session's lock held.
	look(s *workerapi.SessionState)
}

// session is what both sides have in common: the state, the verdict and the order in which things may happen.
type session struct {
	host *Registry
	req  workerapi.OpenRequest
	log  *slog.Logger
	side side

	opened chan struct{}      // closed when Open is over
	worked chan struct{}      // closed when the side's work is over
	stop   context.CancelFunc // ends the side's work
	acting chan struct{}      // holds a token while a verdict or confirmation is acted on

	mu     sync.Mutex // guards what follows
	diary  diary
	done   bool      // the verdict has been acted on
	failed error     // why the session is in StepFailed
	heard  time.Time // when a coordinator last asked for or told this session anything
}

func newSession(r *Registry, req workerapi.OpenRequest) *session {
	s := &session{
		host: r, req: req,
		log:    r.cfg.Log.With("migration", req.Migration, "workload", req.Spec.Name, "role", req.Role),
		opened: make(chan struct{}), worked: make(chan struct{}), acting: make(chan struct{}, 1),
		stop:  func() {},
		heard: time.Now(),
	}
	s.diary = newDiary(r.cfg.Host, workerapi.SessionState{
		Migration: req.Migration, Workload: req.Spec.Name, Role: req.Role, Epoch: req.Epoch, Step: workerapi.StepOpen, DryRun: req.DryRun,
	})
	return s
}

// start lets the side work, in the registry's own time: a caller that goes away stops nothing.
func (s *session) start(ctx context.Context) {
	ctx, s.stop = context.WithCancel(ctx)
	go func() {
		defer close(s.worked)
		if err := s.side.work(ctx); err != nil {
			s.fail(err)
			sweep, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTimeout)
			defer cancel()
			s.side.swept(sweep)
		}
	}()
}

// state is the state as it is at this moment.
func (s *session) state() workerapi.SessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.diary.state
	st.Progress.Rounds = append([]workerapi.Round(nil), st.Progress.Rounds...)
	s.side.look(&st)
	return st
}

// change makes a change to the state that is an event.
func (s *session) change(note string, f func(*workerapi.SessionState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.diary.state)
	s.side.look(&s.diary.state)
	s.diary.write(note)
	s.log.Info("session", "step", s.diary.state.Step, "verdict", s.diary.state.Verdict, "note", note)
}

func (s *session) reach(step workerapi.Step, note string) {
	s.change(note, func(st *workerapi.SessionState) { st.Step = step })
}

// fail says that the session cannot go on. After a verdict nobody asks any more.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.diary.state.Verdict != migration.Undecided || ended(s.diary.state.Step) || s.diary.state.Step == workerapi.StepFailed {
		s.mu.Unlock()
		s.log.Info("work ended", "error", err)
		return
	}
	s.failed = err
	s.mu.Unlock()
	s.log.Error("session failed", "error", err)
	s.change(err.Error(), func(st *workerapi.SessionState) { failure(st, err) })
}

func failure(st *workerapi.SessionState, err error) {
	st.Step, st.Error, st.Next, st.Kind = workerapi.StepFailed, err.Error(), errs.NextOf(err), errs.KindOf(err).String()
}

// will writes into the journal that step is about to be done; did that it has been.
func (s *session) will(step string, data any) error { return s.record(step, false, data) }
func (s *session) did(step string, data any) error  { return s.record(step, true, data) }

func (s *session) record(step string, done bool, data any) error {
	r := journal.Record{Migration: s.req.Migration, Step: step, Done: done}
	if data != nil {
		raw, err := json.Marshal(data)
		if err != nil {
			return errs.New(errs.Failed, "journal step %s: %w", step, err)
		}
		r.Data = raw
	}
	return s.host.cfg.Journal.Append(r)
}

// act takes the right to act and gives a context of the act's own: one that the caller's going away does not end.
func (s *session) act(ctx context.Context) (context.Context, func(), error) {
	select {
	case s.acting <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTimeout)
	return own, func() { cancel(); <-s.acting }, nil
}

// decide takes a verdict and acts on it. It is on the disk before anything is done; it is done again whenever it is
// delivered, until it has been done.
func (s *session) decide(ctx context.Context, v migration.Verdict, epoch migration.Epoch) error {
	ctx, free, err := s.act(ctx)
	if err != nil {
		return err
	}
	defer free()
	s.mu.Lock()
	st, done := s.diary.state, s.done
	s.mu.Unlock()
	what, err := rule(st, done, v, epoch)
	if err != nil || what == nothing {
		return err
	}
	if st.Verdict != v {
		if err := s.will(stepVerdict, ruling{v, epoch}); err != nil {
			return err
		}
		s.change("verdict "+string(v), func(st *workerapi.SessionState) { st.Verdict = v })
		s.mu.Lock()
		s.done = false
		s.mu.Unlock()
	}
	if err := s.carryOut(ctx, what, v, epoch); err != nil {
		s.change("could not act on "+string(v)+": "+err.Error(), func(st *workerapi.SessionState) {
			st.Error, st.Next, st.Kind = err.Error(), errs.NextOf(err), errs.KindOf(err).String()
		})
		return errs.New(errs.KindOf(err), "act on the verdict %s on migration %s of %s: %w", v, s.req.Migration, s.req.Spec.Name, err)
	}
	if err := s.did(stepVerdict, ruling{v, epoch}); err != nil {
		return err
	}
	s.mu.Lock()
	s.done = true
	s.mu.Unlock()
	return nil
}

func (s *session) carryOut(ctx context.Context, what act, v migration.Verdict, epoch migration.Epoch) error {
	switch what {
	case release:
		if err := s.workOver(ctx, false); err != nil {
			return err
		}
		return s.side.released(ctx)
	case undo:
		if err := s.workOver(ctx, true); err != nil {
			return err
		}
		if err := s.side.undone(ctx, v, epoch); err != nil {
			return err
		}
		s.change("", func(st *workerapi.SessionState) {
			st.Step, st.Error, st.Next, st.Kind = workerapi.StepUndone, "", "", ""
		})
	}
	return nil
}

// workOver waits until the side's work is over, and ends it first if asked.
func (s *session) workOver(ctx context.Context, end bool) error {
	if end {
		s.stop()
	}
	select {
	case <-s.worked:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Timeout, "the session's work has not ended in %s", actTimeout).WithNext("look at the worker's log; the verdict will be delivered again")
	}
}

// confirm ends a committed session.
func (s *session) confirm(ctx context.Context, epoch migration.Epoch) error {
	ctx, free, err := s.act(ctx)
	if err != nil {
		return err
	}
	defer free()
	s.mu.Lock()
	st := s.diary.state
	s.mu.Unlock()
	needed, err := ruleConfirm(st, epoch)
	if err != nil || !needed {
		return err
	}
	// A source whose last word was lost on the way back may still be waiting for it: the verdict has answered it.
	if err := s.workOver(ctx, true); err != nil {
		return err
	}
	if err := s.will(stepConfirm, nil); err != nil {
		return err
	}
	if err := s.side.confirmed(ctx); err != nil {
		return errs.New(errs.KindOf(err), "confirm migration %s of %s: %w", s.req.Migration, s.req.Spec.Name, err)
	}
	if err := s.did(stepConfirm, nil); err != nil {
		return err
	}
	s.reach(workerapi.StepDone, "")
	return nil
}

// hear remembers that a coordinator has spoken.
func (s *session) hear() {
	s.mu.Lock()
	s.heard = time.Now()
	s.mu.Unlock()
}
