package rules

import (
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// act is what a verdict demands of a session.
type act int

const (
	nothing act = iota // it has been done already
	note               // source, commit: the tree stays held, from now on without a say
	release            // target, commit: the tree may run
	undo               // abort and reclaim, both roles
)

// Brings is the epoch a verdict brings for a workload that was at e when its migration was admitted.
func Brings(v migration.Verdict, e migration.Epoch) migration.Epoch {
	switch v {
	case migration.Commit:
		return e + 1
	case migration.Reclaim:
		return e + 2
	}
	return e
}

// Decide is what verdict v at that epoch demands of the session. It is on the disk before anything is done, and done again
// whenever it is delivered until it has been done; an empty program says that it has. A verdict once taken is changed by nothing
// but a Reclaim after a Commit; one that cannot have been given is refused.
func (s *Session) Decide(v migration.Verdict, epoch migration.Epoch) (Program, error) {
	a, err := s.rule(v, epoch)
	if err != nil || a == nothing {
		return nil, err
	}
	p := s.carryOut(a)
	if s.Verdict != v {
		p = join(Program{WriteVerdict, TellVerdict}, p)
	}
	return p, nil
}

func (s *Session) rule(v migration.Verdict, epoch migration.Epoch) (act, error) {
	if v != migration.Commit && v != migration.Abort && v != migration.Reclaim {
		return nothing, errs.New(errs.Invalid, "%q is no verdict on migration %s", string(v), s.Migration)
	}
	if want := Brings(v, s.Epoch); epoch != want {
		return nothing, errs.New(errs.Conflict, "verdict %s on migration %s came with epoch %s where it brings %s", v, s.Migration, epoch, want)
	}
	switch {
	case s.Verdict == v && s.Ruled:
		return nothing, nil
	case s.Verdict == v, s.Verdict == migration.Undecided:
	case s.Verdict == migration.Commit && v == migration.Reclaim && s.Step != workerapi.StepDone:
	default:
		return nothing, errs.New(errs.Conflict, "migration %s of %s has had the verdict %s here: it cannot have %s", s.Migration, s.Workload, s.Verdict, v)
	}
	if v != migration.Commit {
		return undo, nil
	}
	return s.ruleCommit()
}

func (s *Session) ruleCommit() (act, error) {
	if s.Role == migration.Source {
		if s.FrozenAt.IsZero() {
			return nothing, errs.New(errs.Conflict, "migration %s of %s cannot be committed: its source is %s and has not been frozen", s.Migration, s.Workload, s.Step)
		}
		return note, nil
	}
	switch s.Step {
	case workerapi.StepHeld, workerapi.StepReleased:
		return release, nil
	case workerapi.StepFailed:
		return release, nil // the verdict counts; releasing says why it cannot be done
	}
	return nothing, errs.New(errs.Conflict, "migration %s of %s cannot be committed: its target is %s, not held", s.Migration, s.Workload, s.Step)
}

// Confirm is what ends a committed session; an empty program says that it has ended.
func (s *Session) Confirm(epoch migration.Epoch) (Program, error) {
	if want := Brings(migration.Commit, s.Epoch); epoch != want {
		return nil, errs.New(errs.Conflict, "confirmation of migration %s came with epoch %s where it is %s", s.Migration, epoch, want)
	}
	switch {
	case s.Step == workerapi.StepDone:
		return nil, nil
	case s.Verdict != migration.Commit:
		return nil, errs.New(errs.Conflict, "migration %s of %s cannot be confirmed: its verdict here is %q", s.Migration, s.Workload, string(s.Verdict))
	case s.Role == migration.Target && s.Step != workerapi.StepReleased && !s.Nothing: // a host that has rebooted since has nothing to drop
		return nil, errs.New(errs.Conflict, "migration %s of %s cannot be confirmed: its target is %s, not released", s.Migration, s.Workload, s.Step)
	}
	end := endSource
	switch {
	case s.Nothing:
		end = nil
	case s.Role == migration.Target:
		end = endTarget
	}
	// A source whose last word was lost on the way back may still be waiting for it: the verdict has answered it.
	return join(Program{EndWork, WriteConfirm}, end, Program{WriteConfirmed, TellDone}), nil
}

// CutOver says whether the source may freeze its tree now.
func (s *Session) CutOver(epoch migration.Epoch) error {
	switch {
	case s.Role != migration.Source:
		return errs.New(errs.Conflict, "this is the target of migration %s: there is nothing to freeze", s.Migration)
	case s.DryRun:
		return errs.New(errs.Conflict, "%s is a dry run: nothing is frozen in it", s.Migration)
	case epoch != s.Epoch:
		return errs.New(errs.Conflict, "cut-over of migration %s came with epoch %s where it is %s", s.Migration, epoch, s.Epoch)
	case s.Verdict != migration.Undecided && s.Verdict != migration.Commit:
		return errs.New(errs.Conflict, "migration %s of %s has had the verdict %s", s.Migration, s.Workload, s.Verdict)
	}
	switch s.Step {
	case workerapi.StepReady, workerapi.StepFrozen, workerapi.StepStaged, workerapi.StepDone:
		return nil
	case workerapi.StepFailed:
		return errs.New(errs.Failed, "migration %s of %s has failed: %s", s.Migration, s.Workload, s.Error)
	}
	return errs.New(errs.Conflict, "migration %s of %s is not ready to freeze: its source is %s", s.Migration, s.Workload, s.Step)
}

// Learn is what the record's phase means for a session of which no leader speaks: the verdict to act on, Undecided if there is none, at
// which epoch, and whether it has been confirmed besides.
func (s *Session) Learn(phase migration.Phase) (v migration.Verdict, epoch migration.Epoch, confirmed bool) {
	v = phase.Verdict()
	// Once both hosts have undone it, the phase no longer tells an abort from a reclaim; what this host has done does.
	if phase == migration.RolledBack && s.Verdict == migration.Commit {
		v = migration.Reclaim
	}
	return v, Brings(v, s.Epoch), phase == migration.Done
}

// MayOpen says whether a session may be opened on a host, in that boot of it, which has seen the workload at epoch newest and has it in another
// migration, if busy is one.
func MayOpen(req workerapi.OpenRequest, boot string, newest migration.Epoch, busy migration.ID) error {
	if req.Boot != "" && boot != "" && req.Boot != boot {
		return errs.New(errs.Conflict, "this host has rebooted since migration %s was admitted", req.Migration).WithNext("migrate again")
	}
	if req.Epoch < newest {
		return errs.New(errs.Conflict, "migration %s of %s comes with epoch %s, but this host has seen %s", req.Migration, req.Spec.Name, req.Epoch, newest)
	}
	if busy != "" {
		return errs.New(errs.Conflict, "%s is already part of migration %s here", req.Spec.Name, busy).
			WithNext("wait for it or abort it: drover abort %s", busy)
	}
	return nil
}
