package rules

import (
	"slices"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// What a session does by itself, before the verdict.
var (
	openSource = Program{WriteOpen, Lend, Connect, WriteOpened, TellOpen}
	openTarget = Program{WriteOpen, Reserve, WriteOpened, TellOpen}

	// Copying, Freezing and Staging are a source's work. Nothing tells the target that it has all before the journal knows that a tree
	// is held here.
	Copying  = Program{Copy}
	Freezing = Program{WriteFreeze, Dump, TellFrozen}
	Staging  = Program{WriteFrozen, SendRest, AwaitFrozen, Finish, TellStaged}

	// Receiving and Rebuilding are a target's.
	Receiving  = Program{Receive, TellStaged}
	Rebuilding = Program{WriteHold, Restore, VouchFor, WriteHeld, TellHeld}
)

// What a verdict and a confirmation demand. Between the records of the journal stands what may be done again after a crash.
var (
	resumeTree = Program{StopCopying, AnswerNo, Unfence, Thaw, Return, DropImages}
	// Nobody hears of a release that the journal does not know of: once it has been heard of the source may be ended, and a worker that came
	// back would not know whether to kill a copy whose keeper has died.
	releaseTree = Program{LetRun, Accept, SeeAlive, WriteRuled, TellReleased}
	removeCopy  = Program{Refuse, Discard}
	makeDead    = Program{Refuse, Discard, Mourn}
	endSource   = Program{StopCopying, EndTree, Leave, DropImages}
	endTarget   = Program{DropImages}
)

// Outcome is the final state that a session's operation ends in.
func Outcome(r migration.Role, o workerapi.MoveOptions) (migration.FinalState, error) {
	if r == migration.Source {
		return o.SourceFinalState.Resolve(migration.OpMigrationDump)
	}
	return o.FinalState.Resolve(migration.OpRestore)
}

// Opening opens a session.
func Opening(r migration.Role) Program {
	if r == migration.Source {
		return openSource
	}
	return openTarget
}

// carryOut is what a verdict's act comes to.
func (s *Session) carryOut(a act) Program {
	switch {
	case a == release && s.Nothing:
		return Program{AwaitWork, Deny}
	case a == release && s.Broken && !s.Gone: // it could not be removed when it failed
		return join(Program{AwaitWork}, makeDead, Program{Deny})
	case a == release && s.Ran && s.Gone && !s.Broken: // it ran, and has ended by itself; the journal could not take it
		return Program{AwaitWork, WriteRuled, TellReleased}
	case a == release && (s.Broken || s.Gone || !s.Holds):
		return Program{AwaitWork, Deny}
	case a == release:
		return join(Program{AwaitWork}, releaseTree)
	case a == undo:
		return join(Program{EndWork}, s.undoing(), Program{TellUndone, WriteRuled})
	}
	return Program{WriteRuled}
}

// undoing leaves of the session on this host what was there before it.
func (s *Session) undoing() Program {
	switch {
	case s.Nothing:
		return nil
	case s.Role == migration.Target:
		return removeCopy
	case s.Returned:
		return Program{StopCopying, DropImages}
	}
	return resumeTree // whether there is a hold is known when the work has ended
}

func join(parts ...Program) Program { return slices.Concat(parts...) }
