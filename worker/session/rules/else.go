package rules

import (
	"errors"

	"drover/engine"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Else is what is done when op has failed with err: to undo what was begun, or, if instead is true, in its place, after which its program
// goes on. Else its ops are all tried, whichever of them fail.
func (s *Session) Else(op Op, err error) (p Program, instead bool) {
	switch op {
	case Lend, Reserve:
		return Program{WriteEnded}, false
	case Connect:
		return Program{StopCopying, Return, DropImages, WriteEnded}, false
	case WriteOpened:
		return s.undoing(), false
	case Dump:
		if !s.Holds { // else the tree could not be let go: it stays held until the verdict, which can only be Abort
			return Program{Unfence, WriteThawed}, false
		}
	case LetRun:
		// The engine has died, or had refused the copy before this worker was restarted. It may have run or may not: made surely dead, the
		// source can be brought back.
		if errors.Is(err, engine.ErrLost) || errors.Is(err, engine.ErrDecided) {
			s.Broken = true
			return join(makeDead, Program{TellFailed}), false
		}
		// Else it is still held, and the verdict is delivered again. A session that had said that it failed could not say later that it released.
	case EndTree: // the keeper has lost its hold; the cgroup still keeps the tree from running
		if s.Final == migration.Dead {
			return Program{Kill}, true
		}
		return Program{Freeze}, true
	}
	return nil, false
}

// WorkFailed ends what need not wait for the verdict when a session's work has come to nothing. A held source stays held.
func (s *Session) WorkFailed() Program {
	p := Program{StopCopying}
	if s.Role == migration.Target {
		p = removeCopy
	}
	if s.MayFail() {
		s.Broken = true
		p = join(Program{TellFailed}, p)
	}
	return p
}

// HoldLost is what a target does when the engine that holds its tree has died: nothing has run, so nothing is lost with it. After a verdict
// acting on it finds out.
func (s *Session) HoldLost() Program {
	if s.Verdict != migration.Undecided || s.Step != workerapi.StepHeld {
		return nil
	}
	return s.WorkFailed()
}

// Unfilled is what a target does when what fills in its tree's memory has died. Until the tree is dead the session says that it is being filled
// in: nobody may end the source meanwhile. over is false if it has to be looked at again.
func (s *Session) Unfilled() (p Program, over bool) {
	switch {
	case s.Step == workerapi.StepHeld && s.Verdict == migration.Undecided:
		return s.WorkFailed(), true
	case s.Step == workerapi.StepHeld: // acting on the verdict, again, finds out
		return nil, false
	case s.Step == workerapi.StepReleased && s.Alive:
		return Program{Kill}, true
	}
	return nil, true
}
