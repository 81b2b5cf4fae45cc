package session

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

// brings is the epoch a verdict brings for a workload that was at e when its migration was admitted.
func brings(v migration.Verdict, e migration.Epoch) migration.Epoch {
	switch v {
	case migration.Commit:
		return e + 1
	case migration.Reclaim:
		return e + 2
	}
	return e
}

// rule says what verdict v at that epoch demands of a session in state s. done says that s.Verdict has been acted on. A
// verdict once taken is changed by nothing but a Reclaim after a Commit; one that cannot have been given is refused.
func rule(s workerapi.SessionState, done bool, v migration.Verdict, epoch migration.Epoch) (act, error) {
	if v != migration.Commit && v != migration.Abort && v != migration.Reclaim {
		return nothing, errs.New(errs.Invalid, "%q is no verdict on migration %s", string(v), s.Migration)
	}
	if want := brings(v, s.Epoch); epoch != want {
		return nothing, errs.New(errs.Conflict, "verdict %s on migration %s came with epoch %s where it brings %s", v, s.Migration, epoch, want)
	}
	switch {
	case s.Verdict == v && done:
		return nothing, nil
	case s.Verdict == v, s.Verdict == migration.Undecided:
	case s.Verdict == migration.Commit && v == migration.Reclaim && s.Step != workerapi.StepDone:
	default:
		return nothing, errs.New(errs.Conflict, "migration %s of %s has had the verdict %s here: it cannot have %s", s.Migration, s.Workload, s.Verdict, v)
	}
	if v != migration.Commit {
		return undo, nil
	}
	return ruleCommit(s)
}

func ruleCommit(s workerapi.SessionState) (act, error) {
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

// ruleConfirm says whether a session may be confirmed; nothing means that it has been.
func ruleConfirm(s workerapi.SessionState, epoch migration.Epoch) (needed bool, err error) {
	if want := brings(migration.Commit, s.Epoch); epoch != want {
		return false, errs.New(errs.Conflict, "confirmation of migration %s came with epoch %s where it is %s", s.Migration, epoch, want)
	}
	switch {
	case s.Step == workerapi.StepDone:
		return false, nil
	case s.Verdict != migration.Commit:
		return false, errs.New(errs.Conflict, "migration %s of %s cannot be confirmed: its verdict here is %q", s.Migration, s.Workload, string(s.Verdict))
	case s.Role == migration.Target && s.Step != workerapi.StepReleased:
		return false, errs.New(errs.Conflict, "migration %s of %s cannot be confirmed: its target is %s, not released", s.Migration, s.Workload, s.Step)
	}
	return true, nil
}
