package session

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session/rules"
)

// actTimeout bounds an act that a verdict demands, for the case that a kernel or CRIU hangs; the call may be repeated.
const actTimeout = 60 * time.Second

// side is what a source and a target do differently. Only one of its methods runs at a time but look, and work is over
// before any other begins.
type side interface {
	// work goes as far as may be gone without a verdict. Its error makes the session fail, unless a verdict has come.
	work(ctx context.Context) error
	// do does an op that is not the same on both sides.
	do(ctx context.Context, op rules.Op) error
	// look fills in what changes without an event. It is called with the session's lock held.
	look(s *workerapi.SessionState)
}

// session is what both sides have in common: the state, the verdict and the carrying out of programs (steps.go).
type session struct {
	host *Registry
	req  workerapi.OpenRequest
	log  *slog.Logger
	side side

	opened  chan struct{}      // closed when Open is over, or the session has been taken up
	worked  chan struct{}      // closed when the side's work is over
	stop    context.CancelFunc // ends the side's work
	acting  chan struct{}      // holds a token while a verdict or confirmation is acted on
	takenUp string             // said of the steps that a restart takes the session up at

	mu     sync.Mutex // guards what follows
	diary  diary
	ruling rules.Ruling // that was last acted on
	digest string       // of what was sent or received, once it has been
	failed error        // why the session is in StepFailed, for good if it is Broken
	waits  error        // why it has not been taken up yet after a restart; nil if it has been, or is new
	heard  time.Time    // when a coordinator last asked for or told this session anything
}

func newSession(r *Registry, req workerapi.OpenRequest) *session {
	return &session{
		host: r, req: req,
		log:    r.cfg.Log.With("migration", req.Migration, "workload", req.Spec.Name, "role", req.Role),
		opened: make(chan struct{}), worked: make(chan struct{}), acting: make(chan struct{}, 1),
		stop:  func() {},
		heard: time.Now(),
		diary: newDiary(r.cfg.Host, rules.New(req)),
	}
}

// start lets the side work, in the registry's own time: a caller that goes away stops nothing.
func (s *session) start(ctx context.Context) {
	ctx, s.stop = context.WithCancel(ctx)
	go func() {
		defer close(s.worked)
		if err := s.side.work(ctx); err != nil {
			s.log.Info("work ended", "error", err)
			s.tryAll(ctx, s.giveUp(err, (*rules.Session).WorkFailed))
		}
	}()
}

// facts is the session as it is at this moment.
func (s *session) facts() *rules.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.diary.state
	return &now
}

// state is what coordinators are told of it.
func (s *session) state() workerapi.SessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.diary.state.SessionState
	st.Progress.Rounds = append([]workerapi.Round(nil), st.Progress.Rounds...)
	s.side.look(&st)
	return st
}

// change makes a change to the state that is an event.
func (s *session) change(note string, f func(*workerapi.SessionState)) {
	s.event(note, func(st *rules.Session) { f(&st.SessionState) })
}

func (s *session) event(note string, f func(*rules.Session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.diary.state)
	s.side.look(&s.diary.state.SessionState)
	s.diary.write(note)
	s.log.Info("session", "step", s.diary.state.Step, "verdict", s.diary.state.Verdict, "note", note)
}

// mark makes a change that is none.
func (s *session) mark(f func(*rules.Session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.diary.state)
}

// giveUp is what how says is to be done now that err has happened.
func (s *session) giveUp(err error, how func(*rules.Session) rules.Program) rules.Program {
	s.mu.Lock()
	defer s.mu.Unlock()
	broken := s.diary.state.Broken
	p := how(&s.diary.state)
	if !broken {
		s.failed = err
	}
	return p
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

// decide takes a verdict and acts on it.
func (s *session) decide(ctx context.Context, v migration.Verdict, epoch migration.Epoch) error {
	ctx, free, err := s.act(ctx)
	if err != nil {
		return err
	}
	defer free()
	program, err := s.facts().Decide(v, epoch)
	if err != nil {
		return err
	}
	s.mark(func(*rules.Session) { s.ruling = rules.Ruling{Verdict: v, Epoch: epoch} })
	op, err := s.run(ctx, program)
	if src, ok := s.side.(*source); ok && err == nil && v == migration.Commit && len(program) > 0 {
		src.putAside() // which nobody waits for
	}
	if err == nil || op.Writes() {
		return err
	}
	s.change("could not act on "+string(v)+": "+err.Error(), func(st *workerapi.SessionState) {
		st.Error, st.Next, st.Kind = err.Error(), errs.NextOf(err), errs.KindOf(err).String()
	})
	return errs.New(errs.KindOf(err), "act on the verdict %s on migration %s of %s: %w", v, s.req.Migration, s.req.Spec.Name, err)
}

// confirm ends a committed session.
func (s *session) confirm(ctx context.Context, epoch migration.Epoch) error {
	ctx, free, err := s.act(ctx)
	if err != nil {
		return err
	}
	defer free()
	program, err := s.facts().Confirm(epoch)
	if err != nil {
		return err
	}
	op, err := s.run(ctx, program)
	if err == nil || op.Writes() {
		return err
	}
	return errs.New(errs.KindOf(err), "confirm migration %s of %s: %w", s.req.Migration, s.req.Spec.Name, err)
}

// workOver waits until the side's work is over.
func (s *session) workOver(ctx context.Context) error {
	select {
	case <-s.worked:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Timeout, "the session's work has not ended in %s", actTimeout).WithNext("look at the worker's log; the verdict will be delivered again")
	}
}

// ready waits until the session has been opened. One that a worker that has been restarted has still to take up says so at once
// (errs.Unavailable): not now. Who asks or tells then does so again.
func (s *session) ready(ctx context.Context) error {
	s.mu.Lock()
	not := s.waits
	s.mu.Unlock()
	if not != nil {
		return not
	}
	select {
	case <-s.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hear remembers that a coordinator has spoken.
func (s *session) hear() {
	s.mu.Lock()
	s.heard = time.Now()
	s.mu.Unlock()
}
