package rules

import (
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Named is a program with what it is for.
type Named struct {
	Side migration.Role
	When string
	Program
}

// Listed are the programs of a session that goes as it should, and of the restarts that matter, for readers.
func Listed() []Named {
	source, target := migration.Source, migration.Target
	held := func(r migration.Role, v migration.Verdict) *Session {
		return &Session{SessionState: workerapi.SessionState{Role: r, Verdict: v, Step: workerapi.StepHeld}, Holds: true}
	}
	decide := func(s *Session, a act) Program { return join(Program{WriteVerdict, TellVerdict}, s.carryOut(a)) }
	return []Named{
		{source, "it is opened", openSource},
		{source, "it copies, freezes, sends", join(Copying, Freezing, Staging)},
		{source, "the dump fails", Program{Unfence, WriteThawed}},
		{source, "COMMIT", decide(held(source, ""), note)},
		{source, "ABORT or RECLAIM", decide(held(source, ""), undo)},
		{source, "it is confirmed", join(Program{EndWork, WriteConfirm}, endSource, Program{WriteConfirmed, TellDone})},
		{target, "it is opened", openTarget},
		{target, "it receives and rebuilds", join(Receiving, Rebuilding)},
		{target, "COMMIT", decide(held(target, ""), release)},
		{target, "COMMIT, but its engine has died", join(makeDead, Program{TellFailed})},
		{target, "ABORT or RECLAIM", decide(held(target, ""), undo)},
		{target, "it is confirmed", join(Program{EndWork, WriteConfirm}, endTarget, Program{WriteConfirmed, TellDone})},
	}
}
