package rules

import (
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Session is what of a session its next steps depend on: what it tells, and what it knows besides. It is a value; a copy is a
// session as it was.
type Session struct {
	workerapi.SessionState
	Final migration.FinalState // that its tree is to be left in

	Ruled    bool // its verdict has been acted on
	Holds    bool // the keeper holds the tree for it
	Broken   bool // it has failed for good; Error says why
	Nothing  bool // this host has nothing of the migration any more
	Returned bool // source: the tree has been given back
	Ran      bool // target: the tree may have run
	Gone     bool // target: no process of it is left
}

// New is a session that has just been asked for.
func New(req workerapi.OpenRequest) Session {
	final, _ := Outcome(req.Role, req.Options) // Registry has checked it
	return Session{Final: final, SessionState: workerapi.SessionState{
		Migration: req.Migration, Workload: req.Spec.Name, Role: req.Role, Epoch: req.Epoch, Step: workerapi.StepOpen, DryRun: req.DryRun,
	}}
}

// tells are the steps that Tell ops reach.
var tells = map[Op]workerapi.Step{
	TellFrozen: workerapi.StepFrozen, TellStaged: workerapi.StepStaged, TellHeld: workerapi.StepHeld, TellReleased: workerapi.StepReleased,
	TellUndone: workerapi.StepUndone, TellDone: workerapi.StepDone, TellFailed: workerapi.StepFailed,
}

// Begin is called before op is done.
func (s *Session) Begin(op Op) {
	if op == LetRun {
		s.Ran = true // from here on nobody can say that it has not
	}
}

// Done is called when op has been done; v is the verdict that is being acted on, if one is.
func (s *Session) Done(op Op, v migration.Verdict) {
	switch op {
	case TellVerdict:
		s.Verdict, s.Ruled = v, false
	case WriteRuled:
		s.Ruled = true
	case Dump, Restore:
		s.Holds = true
	case Return:
		s.Returned = true
	case Discard:
		s.Gone = true
	case Mourn:
		if s.Gone && s.Ran {
			s.ExitSignal = int(unix.SIGKILL)
		}
	case TellReleased, TellUndone:
		s.Error, s.Next, s.Kind = "", "", ""
	}
	if step, ok := tells[op]; ok {
		s.Step = step
	}
	s.Look()
}

// Look brings what follows from the rest up to date.
func (s *Session) Look() {
	if s.Role == migration.Target {
		s.NeverRan = s.Gone && !s.Ran
		s.Alive = s.Step == workerapi.StepReleased && !s.Gone
	}
}

// Ended says whether nothing can happen to the session any more.
func (s *Session) Ended() bool { return s.Step == workerapi.StepDone || s.Step == workerapi.StepUndone }

// MayFail says whether a session whose work has failed says so: after a verdict nobody asks any more.
func (s *Session) MayFail() bool {
	return s.Verdict == migration.Undecided && !s.Ended() && s.Step != workerapi.StepFailed
}

// Frozen notes since when the source's tree has not run, by its host's clock; the zero time says that it runs.
func (s *Session) Frozen(at time.Time) { s.FrozenAt = at }

// Passed notes that the released tree's root has ended, by that signal if it is not 0.
func (s *Session) Passed(signal int) {
	s.Gone, s.ExitSignal, s.Filling = true, signal, nil
	s.Look()
}
