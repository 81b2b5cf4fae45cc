package session

import (
	"context"
	"net"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	workerapi "drover/worker/api"
)

// Session is workerapi.Worker's.
func (r *Registry) Session(ctx context.Context, id migration.ID) (workerapi.SessionState, error) {
	s, err := r.called(ctx, id)
	if err != nil {
		return workerapi.SessionState{}, err
	}
	return s.state(), nil
}

// Watch is workerapi.Worker's.
func (r *Registry) Watch(ctx context.Context, id migration.ID, after uint64, f func(workerapi.Event) error) error {
	s, err := r.called(ctx, id)
	if err != nil {
		return err
	}
	return s.watch(ctx, after, f)
}

// CutOver is workerapi.Worker's.
func (r *Registry) CutOver(ctx context.Context, id migration.ID, epoch migration.Epoch) error {
	s, err := r.called(ctx, id)
	if err != nil {
		return err
	}
	src, ok := s.side.(*source)
	if !ok {
		return errs.New(errs.Conflict, "%s is the target of migration %s: there is nothing to freeze", r.cfg.Host, id)
	}
	return src.allowFreeze(epoch)
}

// Decide is workerapi.Worker's.
func (r *Registry) Decide(ctx context.Context, id migration.ID, v migration.Verdict, epoch migration.Epoch) (workerapi.SessionState, error) {
	s, err := r.called(ctx, id)
	if err != nil {
		return workerapi.SessionState{}, err
	}
	return r.rule(ctx, s, v, epoch)
}

func (r *Registry) rule(ctx context.Context, s *session, v migration.Verdict, epoch migration.Epoch) (workerapi.SessionState, error) {
	if err := s.decide(ctx, v, epoch); err != nil {
		return workerapi.SessionState{}, err
	}
	r.seen(s.req.Spec.Name, epoch)
	return s.state(), nil
}

// Confirm is workerapi.Worker's.
func (r *Registry) Confirm(ctx context.Context, id migration.ID, epoch migration.Epoch) (workerapi.SessionState, error) {
	s, err := r.called(ctx, id)
	if err != nil {
		return workerapi.SessionState{}, err
	}
	if err := s.confirm(ctx, epoch); err != nil {
		return workerapi.SessionState{}, err
	}
	return s.state(), nil
}

// SetBandwidth is workerapi.Worker's.
func (r *Registry) SetBandwidth(ctx context.Context, id migration.ID, bytesPerSecond int64) error {
	s, err := r.called(ctx, id)
	if err != nil {
		return err
	}
	src, ok := s.side.(*source)
	if !ok {
		return errs.New(errs.Conflict, "%s is the target of migration %s: its source limits what is sent", r.cfg.Host, id)
	}
	if bytesPerSecond < 0 {
		return errs.New(errs.Invalid, "a bandwidth of %d bytes a second is not possible", bytesPerSecond)
	}
	src.limit(bytesPerSecond)
	return nil
}

// LimitHost limits what all sources of this host send together while they copy, in bytes a second; 0 is no limit. It takes effect at
// once.
func (r *Registry) LimitHost(bytesPerSecond int64) { r.bandwidth.limitHost(bytesPerSecond) }

// States are the states of all sessions, those that have ended included, oldest first; not those that are still to be opened or taken up.
func (r *Registry) States() []workerapi.SessionState {
	var states []workerapi.SessionState
	for _, s := range r.all() {
		select {
		case <-s.opened:
			states = append(states, s.state())
		default:
		}
	}
	return states
}

// Unheard lists sessions that have not ended and of which no coordinator has spoken for that long.
func (r *Registry) Unheard(silence time.Duration) []workerapi.SessionState {
	var out []workerapi.SessionState
	for _, s := range r.all() {
		select {
		case <-s.opened:
		default:
			continue
		}
		s.mu.Lock()
		silent := time.Since(s.heard) >= silence && !s.diary.state.Ended()
		s.mu.Unlock()
		if silent {
			out = append(out, s.state())
		}
	}
	return out
}

// Learn acts on what the record says of a migration, for a worker that asked because no leader has spoken. It does what the
// leader would have called for, and nothing when the record has no verdict.
func (r *Registry) Learn(ctx context.Context, id migration.ID, phase migration.Phase) error {
	s, err := r.find(id)
	if err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	v, epoch, confirmed := s.facts().Learn(phase)
	if v == migration.Undecided {
		return nil
	}
	if _, err := r.rule(ctx, s, v, epoch); err != nil || !confirmed {
		return err
	}
	return s.confirm(ctx, epoch)
}

// transferOf is what the certificate of a migration's page channels must be bound to.
func transferOf(req workerapi.OpenRequest) pki.Transfer {
	return pki.Transfer{Migration: req.Migration, Epoch: req.Epoch, Source: req.Source.Host, Target: req.Target.Host, Direction: pki.Pages}
}

// TakePages serves a page channel and returns when it has ended; sent is what the certificate of who opened it is bound to. Only that of
// an open migration gets in, exactly as it was opened here, with one channel at a time.
func (r *Registry) TakePages(ctx context.Context, sent pki.Transfer, conn net.Conn) error {
	defer conn.Close()
	s, err := r.find(sent.Migration)
	if err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	t, ok := s.side.(*target)
	switch want := transferOf(s.req); {
	case !ok:
		return errs.New(errs.Conflict, "page channel from %s: %s is not the target of migration %s", sent.Source, r.cfg.Host, sent.Migration)
	case sent != want && sent.Epoch != want.Epoch:
		return errs.New(errs.Conflict, "page channel from %s: migration %s is at %s, not %s", sent.Source, sent.Migration, want.Epoch, sent.Epoch)
	case sent != want:
		return errs.New(errs.Forbidden, "page channel from %s: its certificate is for %s (%s), the migration is %s", sent.Source, sent, sent.Direction, want)
	}
	return t.take(ctx, conn)
}
