package rules

import (
	"slices"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Found is what a worker that has been restarted finds of a migration on its host.
type Found struct {
	Tree bool // the tree that was lent, or the place that was made
	Hold bool // and the keeper holds the tree
}

// TakenUp is how a session is taken up after a restart.
type TakenUp struct {
	Session Session
	Program Program
	Why     Why // what it fails with, if it tells so
}

// Why is the reason for which a session that is taken up cannot go on.
type Why string

const (
	NothingLeft  Why = "nothing of it is here: it was never begun, or the host has been restarted"
	HoldGone     Why = "the keeper has lost its hold; the tree stays frozen until the verdict"
	WhileSending Why = "the worker was restarted while it sent the rest"
	WhileCopying Why = "the worker was restarted while it copied; the tree runs on"
	ReleaseLost  Why = "the keeper has lost its hold just when the tree was released, and the copy was killed"
	BeforeHeld   Why = "the worker was restarted before the tree was held; nothing of it has run here"
)

// TakeUp is how a session goes on whose worker has been restarted while its keeper went on holding. It decides nothing that had not been decided:
// what is held without a verdict stays held; a source that had not been frozen gets its tree back; a target that had not rebuilt
// its tree gives up its place. A verdict that had come and was not acted on is delivered again by the caller, afterwards.
func TakeUp(p *Past, f Found) TakenUp {
	s := New(p.Req)
	s.Verdict, s.Ruled, s.Ran = p.Ruling.Verdict, p.ruled, p.committed // it was on the disk before the tree was let go
	s.Holds = f.Hold
	if p.Frozen != nil {
		s.FrozenAt = p.Frozen.At
	}
	over := p.Over()
	switch {
	case over == workerapi.StepDone:
		s.Nothing, s.Gone = true, true
		return TakenUp{Session: s, Program: Program{TellDone}}
	case over == workerapi.StepUndone:
		s.Nothing, s.Gone = true, true
		return TakenUp{Session: s, Program: Program{TellUndone}}
	case !f.Tree:
		// What may have run here is dead: a restart of the host has ended it, or this worker's predecessor, who did not live to say so.
		s.Nothing, s.Gone = true, true
		return s.takenUp(NothingLeft, Program{Mourn, TellFailed})
	case s.Role == migration.Source:
		return s.takeUpSource(p)
	}
	return s.takeUpTarget(p)
}

func (s Session) takenUp(why Why, p Program) TakenUp {
	s.Broken = why != ""
	return TakenUp{Session: s, Program: p, Why: why}
}

// Again is what of the program that a source was taken up by is tried again, after it has failed; nil for nothing. A verdict that lets the tree
// run asks for the same, or for the opposite, until it has been done.
func (s *Session) Again(p Program) Program {
	if s.Ended() || s.Returned || s.Verdict == migration.Abort || s.Verdict == migration.Reclaim {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(p), func(op Op) bool { return op == TellFailed })
}

func (s Session) takeUpSource(p *Past) TakenUp {
	switch {
	case s.Verdict == migration.Commit:
		return s.takenUp("", Program{TellStaged})
	case p.Frozen != nil && !s.Holds:
		// The target may have all of it: until the verdict nothing may run here, whoever has let go of the tree.
		return s.takenUp(HoldGone, Program{Freeze, Fence, TellFailed})
	case p.Frozen != nil:
		s.SendsNoMore = true
		return s.takenUp("", Program{TellFrozen})
	case p.freezing && s.Holds:
		return s.takenUp(WhileSending, Program{TellFailed})
	}
	return s.takenUp(WhileCopying, join(s.undoing(), Program{TellFailed}))
}

func (s Session) takeUpTarget(p *Past) TakenUp {
	switch {
	case s.Verdict == migration.Commit && s.Ruled:
		return s.takenUp("", Program{SeeAlive, TellReleased})
	case p.Held != nil && s.Holds:
		return s.takenUp("", Program{TellHeld})
	case s.Verdict == migration.Commit:
		// It may have run or may not: nobody can say. Made surely dead, the source can be brought back; it is still held, for
		// nobody has heard of a release.
		return s.takenUp(ReleaseLost, join(makeDead, Program{TellFailed}))
	}
	return s.takenUp(BeforeHeld, join(removeCopy, Program{TellFailed}))
}
