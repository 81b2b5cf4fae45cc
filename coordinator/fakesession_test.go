package coordinator

import (
	"context"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// Open begins a session: a source copies for a while and then asks to cut over.
func (h *fakeWorker) Open(_ context.Context, req workerapi.OpenRequest) (workerapi.SessionState, error) {
	return call(h, "Open "+string(req.Role), func() (workerapi.SessionState, error) {
		if s, ok := h.sessions[req.Migration]; ok {
			return s.now(), nil
		}
		s := &fakeSession{req: req, state: workerapi.SessionState{Migration: req.Migration, Workload: req.Spec.Name, Role: req.Role, Epoch: req.Epoch}}
		h.sessions[req.Migration] = s
		h.step(s, workerapi.StepOpen)
		if req.Role == migration.Source {
			h.later(h.copyFor, s, workerapi.StepOpen, func() {
				s.state.Progress.BlackoutGuess = 50 * time.Millisecond
				if req.DryRun {
					s.state.Progress.Forecast = &workerapi.Forecast{Ends: workerapi.EndsWithin, Blackout: 50 * time.Millisecond, Rounds: 2}
				}
				h.step(s, workerapi.StepReady)
			})
		}
		return s.now(), nil
	})
}

// later does f after d, if the session is then still at that step and its host lives.
func (h *fakeWorker) later(d time.Duration, s *fakeSession, at workerapi.Step, f func()) {
	time.AfterFunc(d, func() {
		h.world.mu.Lock()
		defer h.world.mu.Unlock()
		if s.state.Step == at && h.sessions[s.req.Migration] == s {
			f()
		}
	})
}

// CutOver freezes the tree; what is left goes to the target, which rebuilds it.
func (h *fakeWorker) CutOver(_ context.Context, id migration.ID, epoch migration.Epoch) error {
	_, err := call(h, "CutOver", func() (int, error) {
		s, err := h.session(id)
		if err != nil {
			return 0, err
		}
		if s.state.Step != workerapi.StepReady {
			return 0, nil
		}
		if s.req.DryRun {
			h.world.t.Error("a dry run was told to cut over")
		}
		h.world.halt(s.state.Workload, h.name)
		s.frozen = time.Now()
		h.step(s, workerapi.StepFrozen)
		target := h.world.hosts[s.req.Target.Host]
		if t, ok := target.sessions[id]; ok && t.state.Step == workerapi.StepOpen {
			target.rebuild(t)
		}
		return 0, nil
	})
	return err
}

func (h *fakeWorker) rebuild(s *fakeSession) {
	fail := func(at workerapi.Step) bool {
		if h.failAt != at {
			return false
		}
		s.state.Error, s.state.NeverRan = "restore failed: /usr/bin/redis is missing", true
		h.step(s, workerapi.StepFailed)
		return true
	}
	h.later(h.restoreFor, s, workerapi.StepOpen, func() {
		if fail(workerapi.StepStaged) {
			return
		}
		s.state.Digest = "d1"
		h.step(s, workerapi.StepStaged)
		h.later(h.restoreFor, s, workerapi.StepStaged, func() {
			if !fail(workerapi.StepHeld) {
				h.step(s, workerapi.StepHeld)
			}
		})
	})
}

// Decide acts on a verdict, once.
func (h *fakeWorker) Decide(_ context.Context, id migration.ID, v migration.Verdict, epoch migration.Epoch) (workerapi.SessionState, error) {
	return call(h, "Decide "+string(v), func() (workerapi.SessionState, error) {
		s, err := h.session(id)
		if err != nil {
			return workerapi.SessionState{}, err
		}
		if before := s.state.Verdict; before == v {
			return s.now(), s.cannot()
		} else if before == migration.Abort || before == migration.Reclaim || before == migration.Commit && v == migration.Abort {
			return workerapi.SessionState{}, errs.New(errs.Conflict, "%s has had %s and gets %s", h.name, before, v)
		}
		h.world.history = append(h.world.history, string(v)+" on "+h.name)
		s.state.Verdict = v
		if s.state.Role == migration.Source {
			h.decideSource(s, v, epoch)
		} else {
			h.decideTarget(s, v, epoch)
		}
		return s.now(), s.cannot()
	})
}

// cannot is why a session could not act on its verdict, which it says again whenever it is delivered.
func (s *fakeSession) cannot() error {
	if s.state.Verdict != migration.Commit || s.state.Step != workerapi.StepFailed {
		return nil
	}
	return errs.New(errs.Failed, "act on the verdict commit: %s", s.state.Error)
}

func (h *fakeWorker) decideSource(s *fakeSession, v migration.Verdict, epoch migration.Epoch) {
	name := s.state.Workload
	if v == migration.Commit {
		h.step(s, s.state.Step)
		return
	}
	if t := h.trees[name]; t != nil {
		t.epoch = epoch
		h.world.run(name, h.name)
	}
	h.step(s, workerapi.StepUndone)
}

func (h *fakeWorker) decideTarget(s *fakeSession, v migration.Verdict, epoch migration.Epoch) {
	name := s.state.Workload
	if v != migration.Commit {
		h.world.halt(name, h.name)
		delete(h.trees, name)
		h.step(s, workerapi.StepUndone)
		return
	}
	if h.failAt == workerapi.StepReleased {
		s.state.Error, s.state.NeverRan = "criu died while it held the tree", true
		h.step(s, workerapi.StepFailed)
		return
	}
	h.trees[name] = &fakeTree{s.req.Spec, epoch, workload.Running}
	h.world.run(name, h.name)
	s.state.Alive, s.state.ReleasedAt = true, time.Now()
	h.step(s, workerapi.StepReleased)
}

// die ends a released tree by a signal.
func (h *fakeWorker) die(name string, signal int) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	for _, s := range h.sessions {
		if s.state.Workload == name && s.state.Step == workerapi.StepReleased {
			h.world.halt(name, h.name)
			h.world.died[name] = h.name
			s.state.Alive, s.state.ExitSignal = false, signal
			h.step(s, workerapi.StepReleased)
		}
	}
}

// Confirm ends a committed session.
func (h *fakeWorker) Confirm(_ context.Context, id migration.ID, _ migration.Epoch) (workerapi.SessionState, error) {
	return call(h, "Confirm", func() (workerapi.SessionState, error) {
		s, err := h.session(id)
		if err != nil {
			return workerapi.SessionState{}, err
		}
		if s.state.Verdict != migration.Commit {
			return workerapi.SessionState{}, errs.New(errs.Conflict, "%s is told to confirm what it has no COMMIT of", h.name)
		}
		if s.state.Role == migration.Source && s.state.Step != workerapi.StepDone {
			if s.req.Options.SourceFinalState == migration.Stopped {
				t := h.trees[s.state.Workload]
				t.state, t.epoch = workload.Fenced, s.req.Epoch+1
			} else {
				delete(h.trees, s.state.Workload)
			}
		}
		if s.state.Step != workerapi.StepDone {
			h.step(s, workerapi.StepDone)
		}
		return s.now(), nil
	})
}
