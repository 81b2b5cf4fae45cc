package migration

import (
	"fmt"

	"drover/internal/errs"
)

// ID names one attempt to move one workload; a retry is a new migration. 1 to 64 characters of [a-z0-9-].
type ID string

// Epoch counts the changes of ownership of a workload, from 1. A worker refuses anything that carries an older epoch than the
// newest it has seen for that workload.
type Epoch uint64

// FinalState is the state a tree is in after a dump or a restore.
type FinalState string

const (
	Running FinalState = "running"
	Stopped FinalState = "stopped" // every thread stopped as by SIGSTOP
	Dead    FinalState = "dead"
)

// Operation is what a final state is asked for.
type Operation string

const (
	OpPreDump       Operation = "pre-dump"
	OpMigrationDump Operation = "migration dump" // applied to the source only after the verdict
	OpSnapshotDump  Operation = "checkpoint"
	OpRestore       Operation = "restore"
)

// finalStates lists what each operation may be asked for; the first is its default.
var finalStates = map[Operation][]FinalState{
	OpPreDump:       {Running},
	OpMigrationDump: {Dead, Stopped},
	OpSnapshotDump:  {Running, Stopped, Dead},
	OpRestore:       {Running, Stopped},
}

// FinalStates lists the final states op may be asked for; the first is the default.
func FinalStates(op Operation) []FinalState { return finalStates[op] }

// Resolve gives the final state to use for op when s was asked for; "" asks for the default. What the operation cannot end
// in is an errs.Invalid error that names what it can.
func (s FinalState) Resolve(op Operation) (FinalState, error) {
	allowed := finalStates[op]
	if s == "" && len(allowed) > 0 {
		return allowed[0], nil
	}
	for _, a := range allowed {
		if a == s {
			return s, nil
		}
	}
	if op == OpPreDump {
		return "", errs.New(errs.Invalid, "final state %q makes no sense for a pre-dump: it is a look at a tree that goes on running", s)
	}
	return "", errs.New(errs.Invalid, "a %s cannot leave a tree %q", op, s).WithNext("choose one of %v", allowed)
}

// Verdict is the one replicated record that decides a migration. The empty verdict means that none has been given.
type Verdict string

const (
	Undecided Verdict = ""
	Commit    Verdict = "commit"  // the target owns the workload, at epoch e+1
	Abort     Verdict = "abort"   // the source owns it as before
	Reclaim   Verdict = "reclaim" // after Commit: the target's tree is proven dead, the source owns it again, at epoch e+2
)

// Role is a host's part in one migration.
type Role string

const (
	Source Role = "source"
	Target Role = "target"
)

// Valid says whether id has the form of a migration's id.
func (id ID) Valid() error {
	if len(id) == 0 || len(id) > 64 {
		return errs.New(errs.Invalid, "a migration's id has 1 to 64 characters, not %d", len(id))
	}
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return errs.New(errs.Invalid, "migration id %q: only a-z, 0-9 and - are allowed", string(id))
		}
	}
	return nil
}

func (e Epoch) String() string { return fmt.Sprintf("e%d", uint64(e)) }

// Policy is what matters most in a move. It is the defaults of the other choices, and nothing else.
type Policy string

const (
	Gentle   Policy = "gentle"    // the tree must not notice: little load, never over the budget, else not at all
	Fast     Policy = "fast"      // the default
	MustMove Policy = "must-move" // it has to leave: slowed down if it must be, over the budget if nothing else helps
)
