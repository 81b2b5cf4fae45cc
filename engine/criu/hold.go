package criu

import (
	"context"
	"sync"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

// hold is what a held dump and a held restore have in common: CRIU waits for the answer to its last notification.
type hold struct {
	s    *swrk
	pid  int
	lost chan struct{}

	// committed carries on when CRIU has heard "true", aborted does all of an abort. Both are called with mu held; aborted may
	// be called again if it failed.
	committed func(ctx context.Context) (engine.Stats, error)
	aborted   func(ctx context.Context) error
	ready     func() error // called before CRIU hears "true"; its error refuses the commit, which is no verdict; nil if nothing is to be done

	mu      sync.Mutex
	decided migration.Verdict // Commit or Abort
	stats   engine.Stats
	err     error
}

// newHold begins to watch CRIU: Lost is closed if it ends before a verdict.
func newHold(s *swrk, pid int, stats engine.Stats) *hold {
	h := &hold{s: s, pid: pid, stats: stats, lost: make(chan struct{})}
	go func() {
		<-s.gone
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.decided == migration.Undecided {
			close(h.lost)
		}
	}()
	return h
}

func (h *hold) Pid() int { return h.pid }

func (h *hold) Lost() <-chan struct{} { return h.lost }

func (h *hold) Stats() engine.Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

// Commit implements engine.Hold.
func (h *hold) Commit(ctx context.Context) (engine.Stats, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch h.decided {
	case migration.Commit:
		return h.stats, h.err
	case migration.Abort:
		return h.stats, errs.New(errs.Conflict, "commit pid %d: %w", h.pid, engine.ErrDecided)
	}
	if h.ready != nil && !h.s.ended() {
		if err := h.ready(); err != nil {
			return h.stats, errs.New(errs.Conflict, "commit pid %d: %w", h.pid, err).WithNext("abort it")
		}
	}
	if h.s.ended() || h.s.answer(true) != nil { // it has not heard the verdict, and none was given
		return h.stats, errs.New(errs.Failed, "commit pid %d: %w", h.pid, engine.ErrLost)
	}
	h.decided = migration.Commit
	h.stats, h.err = h.committed(ctx)
	return h.stats, h.err
}

// Abort implements engine.Hold. One that failed can be tried again.
func (h *hold) Abort(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.decided == migration.Commit:
		return errs.New(errs.Conflict, "abort pid %d: %w", h.pid, engine.ErrDecided)
	case h.decided == migration.Abort && h.err == nil:
		return nil
	}
	h.decided = migration.Abort
	h.err = h.aborted(ctx)
	return h.err
}
