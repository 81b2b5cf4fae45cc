package moves

import (
	"testing"

	"drover/worker/session/rules"
)

// Moments of a move, exactly: a session stands still there, but for the first, which lasts until it is over.
var (
	copying = boundary{role: src, op: rules.Copy, sends: true} // the first round is on its way
	frozen  = boundary{role: src, op: rules.TellFrozen}        // the source holds the tree, and nobody knows
	held    = boundary{role: dst, op: rules.TellHeld}          // both hold it, and nobody can decide
	decided = boundary{role: dst, op: rules.LetRun}            // COMMIT is in the record and has come to the target, where nothing runs yet
	running = boundary{role: src, op: rules.WriteVerdict}      // the target's copy runs, in its probation, and the source is about to hear of it
)

// deaths are the points of the matrix that every run of the tests goes through.
var deaths = []row{
	{theLeader, "", killed, []boundary{copying, frozen, decided}, there},
	{theMajority, "", killed, []boundary{copying, frozen, decided}, there},
	{theCommand, "", killed, []boundary{copying}, there},

	{theWorker, src, killed, []boundary{copying}, here},
	{theWorker, src, killed, []boundary{held, decided, running}, there},
	{theWorker, dst, killed, []boundary{copying}, here},
	{theWorker, dst, killed, []boundary{held, decided, running}, there},

	{theKeeper, src, killed, []boundary{held}, there},
	{theKeeper, dst, killed, []boundary{held}, here},
	{theCRIU, src, killed, []boundary{held}, there},
	{theCRIU, dst, killed, []boundary{held}, here},
	{theFiller, dst, killed, []boundary{copying}, here},
	{keeperHereCRIUThere, "", killed, []boundary{held}, here},
	{bothCRIUs, "", killed, []boundary{held}, here},
	{allThatHold, "", killed, []boundary{held}, here},
	{allThatHoldOrTell, "", killed, []boundary{held}, here},

	{theLink, "", cutOff, []boundary{copying}, there},
}

func TestWhoeverDiesOneCopyLivesOn(t *testing.T) {
	if a := goThrough(t, points(deaths), 1, draw(t)); a != nil {
		a.end(t, spare)
	}
}
