package migration

import "drover/internal/errs"

// Phase is how far a migration has come, as the record has it.
type Phase string

const (
	Admitted   Phase = "ADMITTED"
	Copying    Phase = "COPYING"
	Frozen     Phase = "FROZEN"
	Staged     Phase = "STAGED"
	Held       Phase = "HELD"
	Committed  Phase = "COMMITTED"
	Released   Phase = "RELEASED"
	Done       Phase = "DONE"
	Aborted    Phase = "ABORTED"
	Reclaimed  Phase = "RECLAIMED"
	RolledBack Phase = "ROLLED_BACK"
)

// Event is what carries a migration from one phase to the next.
type Event string

const (
	EvBegin    Event = "begin"    // both sessions are open: rounds may start
	EvFreeze   Event = "freeze"   // the source asked to cut over and may
	EvStaged   Event = "staged"   // the target has all, digests equal
	EvHeld     Event = "held"     // the target's tree is rebuilt and waits
	EvCommit   Event = "commit"   // verdict
	EvAbort    Event = "abort"    // verdict
	EvReleased Event = "released" // the target's tree runs, or is stopped as asked
	EvConfirm  Event = "confirm"  // probation passed; the source has reached its final state
	EvReclaim  Event = "reclaim"  // verdict, after COMMIT until probation is over
	EvUndone   Event = "undone"   // both hosts have undone an aborted or reclaimed migration
)

// Row is one line of the protocol.
type Row struct {
	From   Phase
	On     Event
	To     Phase
	Record string // what the replicated record says from then on
	Source string // what the source's session does when it learns of it
	Target string // what the target's session does when it learns of it
	Undo   string // how this row's work is undone if the migration is aborted in To
}

// Table is the whole protocol: every row that is not here is refused.
var Table = []Row{
	{Admitted, EvBegin, Copying, "begin", "opens a session; rounds: changed pages and files go to the target, the tree runs", "opens a session; reserves memory, pids, address; keeps pages and files", "source: detach trackers; target: drop pages, free what was reserved"},
	{Copying, EvFreeze, Frozen, "freeze granted", "final dump; at post-dump holds the tree by CRIU and by cgroup.freeze, fences its address", "receives the rest", "source: thaw, answer false to CRIU, unfence"},
	{Frozen, EvStaged, Staged, "", "sends a manifest with digests", "all is there and the digests are equal", "target: drop images"},
	{Staged, EvHeld, Held, "digest", "held", "restores behind a fence; CRIU waits at post-restore, no user code has run", "target: answer false to CRIU, cgroup.kill"},
	{Held, EvCommit, Committed, "owner = target, epoch e+1", "held, without a say", "answers true to CRIU, announces the address, lifts the fence", "only by reclaim"},
	{Committed, EvReleased, Released, "blackout", "held through probation", "the tree runs, or is left stopped as asked", "only by reclaim"},
	{Released, EvConfirm, Done, "confirmed", "applies its final state: dead, or stopped and fenced", "drops images", "none"},
	{Committed, EvReclaim, Reclaimed, "owner = source, epoch e+2", "resumes the tree", "proves its tree dead, sweeps what is left", ""},
	{Released, EvReclaim, Reclaimed, "owner = source, epoch e+2", "resumes the tree", "proves its tree dead, sweeps what is left", ""},
	{Admitted, EvAbort, Aborted, "aborted, with the reason", "nothing to undo", "frees what was reserved", ""},
	{Copying, EvAbort, Aborted, "aborted, with the reason", "detaches trackers; the tree never stopped", "drops pages and files", ""},
	{Frozen, EvAbort, Aborted, "aborted, with the reason", "resumes the tree: CRIU undoes its locks, then thaw", "drops pages and files", ""},
	{Staged, EvAbort, Aborted, "aborted, with the reason", "resumes the tree", "drops images, kills a half-restored tree", ""},
	{Held, EvAbort, Aborted, "aborted, with the reason", "resumes the tree", "kills the held tree", ""},
	{Aborted, EvUndone, RolledBack, "rolled back", "runs as before", "nothing is left", ""},
	{Reclaimed, EvUndone, RolledBack, "rolled back", "runs as before", "nothing is left", ""},
}

// Next is the phase that ev leads to from p; an event the table does not have there is an errs.Conflict error.
func Next(p Phase, ev Event) (Phase, error) {
	for _, r := range Table {
		if r.From == p && r.On == ev {
			return r.To, nil
		}
	}
	return p, errs.New(errs.Conflict, "a migration that is %s cannot %s", p, ev)
}

// Final says whether a migration in phase p has ended on both hosts.
func (p Phase) Final() bool { return p == Done || p == RolledBack }

// Decided says whether a verdict has been recorded by phase p.
func (p Phase) Decided() bool { return p.Verdict() != Undecided }

// Verdict is the verdict that a migration in phase p has had; for RolledBack, which follows two of them, it is Abort:
// either way the source owns the workload.
func (p Phase) Verdict() Verdict {
	switch p {
	case Committed, Released, Done:
		return Commit
	case Aborted, RolledBack:
		return Abort
	case Reclaimed:
		return Reclaim
	}
	return Undecided
}
