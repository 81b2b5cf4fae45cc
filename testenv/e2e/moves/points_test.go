package moves

import (
	"fmt"
	"slices"
	"time"

	"drover/internal/migration"
	"drover/worker/session/rules"
)

// boundary is a moment of a move: just before an op of one side's session, which stands still there, or within the time that it takes.
type boundary struct {
	role   migration.Role
	op     rules.Op
	within time.Duration // 0: just before the op; else a drawn part of this time after it has begun
	sends  bool          // not before the op, but once it has sent pages
	undo   bool          // the operator aborts while both trees are held: the op is one of undoing
}

func (b boundary) String() string {
	s := fmt.Sprintf("%s before %q", b.role, b.op)
	if b.within > 0 {
		s = fmt.Sprintf("%s within %q", b.role, b.op)
	}
	if b.sends {
		s = fmt.Sprintf("%s has sent pages in %q", b.role, b.op)
	}
	if b.undo {
		s += " of an abort"
	}
	return s
}

// slowly says whether the copy has to be stretched for the boundary to last.
func (b boundary) slowly() bool { return b.op == rules.Copy && (b.within > 0 || b.sends) }

// party is who is struck.
type party string

const (
	theCRIU   party = "CRIU"
	theKeeper party = "keeper"
	theFiller party = "filler"
	theWorker party = "worker"
	theLeader party = "leader"
	theHost   party = "host"
	theLink   party = "link"
	theDisk   party = "disk"

	theMajority party = "majority of the coordinators"
	theCommand  party = "operator's command"

	// Several at once, which have no side as a whole.
	keeperHereCRIUThere party = "source's keeper and target's CRIU"
	bothCRIUs           party = "source's CRIU and target's CRIU"
	allThatHold         party = "source's CRIU and keeper and target's CRIU"
	allThatHoldOrTell   party = "source's CRIU, keeper and worker and target's CRIU"
)

// victim is a party on its side.
type victim struct {
	who  party
	role migration.Role
}

// together are those that are struck as one, in this order. A source's CRIU that dies after its keeper undoes the dump, which is another case.
var together = map[party][]victim{
	keeperHereCRIUThere: {{theKeeper, src}, {theCRIU, dst}},
	bothCRIUs:           {{theCRIU, src}, {theCRIU, dst}},
	allThatHold:         {{theCRIU, src}, {theKeeper, src}, {theCRIU, dst}},
	allThatHoldOrTell:   {{theCRIU, src}, {theKeeper, src}, {theCRIU, dst}, {theWorker, src}},
}

// fault is what strikes it.
type fault string

const (
	killed  fault = "kill -9"
	stopped fault = "SIGSTOP"
	cutOff  fault = "cut"
	full    fault = "full"
	starved fault = "out of memory"
)

// ending is where the tree may be when all is over.
type ending string

const (
	there  ending = "target"
	here   ending = "source"
	either ending = "either"
	// withHost: it was running or held on the host that died, before any verdict, and is gone with it.
	withHost ending = "lost with its host"
	// rescued: all of it had been sent, and the target holds it, or will not in time.
	rescued ending = "target, or lost with its host"
	// documented: a CRIU that is killed in the middle of a dump, not at its hold, may take the tree along (docs/protocol.md).
	documented ending = "either, or ended by a killed dump"
)

// point is a case of the matrix.
type point struct {
	at   boundary
	who  party
	role migration.Role // on which side; "" for those that are on none, and for several
	what fault
	ends ending
}

func (p point) String() string {
	return fmt.Sprintf("%s, %s%s: %s", p.at, p.role, map[bool]string{true: "'s "}[p.role != ""]+string(p.who), p.what)
}

const (
	src = migration.Source
	dst = migration.Target
)

func (p point) mayEnd() bool { return p.ends == documented || p.ends == withHost || p.ends == rescued }

func before(role migration.Role, ops ...rules.Op) (all []boundary) {
	for _, op := range ops {
		all = append(all, boundary{role: role, op: op})
	}
	return all
}

func undoing(role migration.Role, ops ...rules.Op) []boundary {
	all := before(role, ops...)
	for i := range all {
		all[i].undo = true
	}
	return all
}

var (
	inRounds   = boundary{role: src, op: rules.Copy, within: time.Second}
	midDump    = boundary{role: src, op: rules.Dump, within: 60 * time.Millisecond}
	midRestore = boundary{role: dst, op: rules.Restore, within: 60 * time.Millisecond}
	midRelease = boundary{role: dst, op: rules.LetRun, within: 30 * time.Millisecond}
	filling    = boundary{role: dst, op: rules.TellReleased, within: 30 * time.Millisecond}

	copies     = []boundary{before(src, rules.Copy)[0], inRounds, copying}
	freezing   = before(src, rules.WriteFreeze, rules.Dump)
	sourceHold = before(src, rules.TellFrozen, rules.WriteFrozen, rules.SendRest, rules.AwaitFrozen, rules.Finish, rules.TellStaged)
	staged     = before(dst, rules.TellStaged, rules.WriteHold, rules.Restore)
	targetHold = before(dst, rules.VouchFor, rules.WriteHeld, rules.TellHeld)
	decidedDst = before(dst, rules.WriteVerdict, rules.TellVerdict, rules.LetRun)
	decidedSrc = before(src, rules.WriteVerdict, rules.TellVerdict, rules.WriteRuled)
	ran        = before(dst, rules.Accept, rules.TellReleased, rules.WriteRuled)
	confirmSrc = before(src, rules.WriteConfirm, rules.EndTree, rules.Leave, rules.DropImages, rules.WriteConfirmed, rules.TellDone)
	confirmDst = before(dst, rules.WriteConfirm, rules.DropImages, rules.WriteConfirmed, rules.TellDone)
	undoSrc    = undoing(src, rules.WriteVerdict, rules.EndWork, rules.StopCopying, rules.AnswerNo, rules.Unfence, rules.Thaw, rules.Return, rules.DropImages, rules.TellUndone, rules.WriteRuled)
	undoDst    = undoing(dst, rules.WriteVerdict, rules.EndWork, rules.Refuse, rules.Discard, rules.TellUndone, rules.WriteRuled)
)

func join(parts ...[]boundary) []boundary { return slices.Concat(parts...) }

// row is points that differ only in when it happens.
type row struct {
	who  party
	role migration.Role
	what fault
	at   []boundary
	ends ending
}

// matrix is who is struck by what, where, and what has to come of it. What a row says of the end is docs/protocol.md's "Who dies, what
// happens"; either is said where a race or a deadline, not the protocol, decides.
var matrix = []row{
	{theLeader, "", killed, join(copies[1:], freezing[:1], sourceHold[:1], staged[1:2], targetHold[2:], decidedDst, decidedSrc[:1], ran[1:], confirmSrc[:2], confirmDst[:1]), there},
	{theLeader, "", killed, join(undoSrc[:1], undoSrc[5:6], undoDst[:1], undoDst[3:4]), here},
	{theLeader, "", stopped, join(copies[1:], sourceHold[:1], targetHold[2:], ran[1:2]), either},
	{theMajority, "", killed, join(copies[1:], sourceHold[:1], targetHold[2:], decidedDst[2:]), there},
	{theCommand, "", killed, copies[1:], there},

	{theWorker, src, killed, join(copies, freezing[:1]), here},
	{theWorker, src, killed, join(freezing[1:], []boundary{midDump}), either},
	{theWorker, src, killed, sourceHold[:5], either},
	{theWorker, src, killed, join(sourceHold[5:], targetHold, decidedDst, decidedSrc, ran, confirmSrc, confirmDst[:1]), there},
	{theWorker, src, killed, undoSrc, here},
	{theWorker, src, stopped, join(copies[1:], freezing[1:], sourceHold, decidedSrc[:1], confirmSrc[1:2]), either},
	{theWorker, src, stopped, undoSrc[3:6], here},

	{theWorker, dst, killed, join(copies, staged), here},
	{theWorker, dst, killed, []boundary{midRestore, targetHold[0], targetHold[1]}, either},
	{theWorker, dst, killed, join(targetHold[2:], decidedDst, decidedSrc[:1], ran, confirmDst, confirmSrc[:1]), there},
	{theWorker, dst, killed, []boundary{midRelease, filling}, either},
	{theWorker, dst, killed, undoDst, here},
	{theWorker, dst, stopped, join(copies[1:], staged, targetHold, decidedDst, ran[1:2]), either},
	{theWorker, dst, stopped, undoDst[2:4], here},

	{theKeeper, src, killed, join(copies, freezing, []boundary{midDump}), either},
	{theKeeper, src, killed, join(sourceHold[:1], sourceHold[5:], targetHold[2:], decidedDst[2:], decidedSrc, ran[1:2], confirmSrc[:2]), there},
	{theKeeper, src, killed, undoSrc[2:7], here},
	{theKeeper, src, stopped, join(copies[1:], freezing[1:], sourceHold[:1], sourceHold[5:], confirmSrc[1:2]), either},
	{theKeeper, src, stopped, undoSrc[3:4], here},

	{theKeeper, dst, killed, join(copies[1:], staged[2:], []boundary{midRestore}, targetHold[:2]), here},
	{theKeeper, dst, killed, join(targetHold[2:], decidedDst[2:]), here},
	{theKeeper, dst, killed, join([]boundary{midRelease, filling}, ran[:2]), either},
	{theKeeper, dst, killed, []boundary{undoDst[2], undoDst[3]}, here},
	{theKeeper, dst, stopped, join(staged[2:], targetHold[2:], decidedDst[2:], ran[:1]), either},

	{theCRIU, src, killed, []boundary{midDump}, documented},
	{theCRIU, src, killed, join(sourceHold[:1], sourceHold[2:3], sourceHold[5:], targetHold[2:], decidedDst[2:], decidedSrc[2:], ran[1:2], confirmSrc[:2]), there},
	{theCRIU, src, killed, undoSrc[3:4], here},
	{theCRIU, src, stopped, join([]boundary{midDump}, sourceHold[:1], sourceHold[5:], confirmSrc[1:2]), either},
	{theCRIU, src, stopped, undoSrc[3:4], here},

	{theCRIU, dst, killed, join([]boundary{midRestore}, staged[2:]), either},
	{theCRIU, dst, killed, join(targetHold, decidedDst), here},
	{theCRIU, dst, killed, []boundary{midRelease}, either},
	{theCRIU, dst, killed, undoDst[2:3], here},
	{theCRIU, dst, stopped, join([]boundary{midRestore}, targetHold[2:], decidedDst[2:]), either},

	{keeperHereCRIUThere, "", killed, targetHold[2:], here},
	{bothCRIUs, "", killed, targetHold[2:], here},
	{allThatHold, "", killed, targetHold[2:], here},
	{allThatHoldOrTell, "", killed, targetHold[2:], here},

	{theFiller, dst, killed, join(copies[1:], staged[2:], targetHold[:1]), here},
	{theFiller, dst, killed, join(targetHold[2:], decidedDst[2:], []boundary{filling}), either},
	{theFiller, dst, stopped, join(staged[2:], targetHold[:1], decidedDst[2:]), either},

	{theLink, "", cutOff, join(copies, freezing[1:], sourceHold[:1], sourceHold[2:3], sourceHold[4:5]), either},
	{theLink, "", cutOff, join(targetHold[2:], decidedDst[2:], ran[:1], confirmSrc[1:2]), there},
	{theLink, "", cutOff, []boundary{undoSrc[3], undoDst[2]}, here},
	{theLink, src, cutOff, join(copies[1:], sourceHold[:1], targetHold[2:], decidedSrc[:1], confirmSrc[:1]), either},
	{theLink, dst, cutOff, join(copies[1:], sourceHold[:1], targetHold[2:], decidedDst[2:], ran[1:2]), either},

	{theDisk, src, full, join(copies, freezing, sourceHold[1:2], decidedSrc[:1], confirmSrc[:1]), either},
	{theDisk, src, full, undoSrc[:1], here},
	{theDisk, dst, full, join(copies, staged[1:], targetHold[1:2], decidedDst[:1], ran[2:], confirmDst[:1]), either},
	{theDisk, dst, full, undoDst[:1], here},

	{theWorker, src, starved, join(copies[1:], freezing[1:], sourceHold[2:3], decidedSrc[:1], confirmSrc[1:2]), either},
	{theWorker, dst, starved, join(copies[1:], staged[2:], targetHold[2:], decidedDst[2:], ran[1:2]), either},
	{theKeeper, src, starved, join(freezing[1:], sourceHold[5:], confirmSrc[1:2]), either},
	{theKeeper, dst, starved, join(staged[2:], targetHold[2:], decidedDst[2:]), either},
	{theCRIU, src, starved, sourceHold[5:], either},
	{theCRIU, dst, starved, join(staged[2:], targetHold[2:]), either},
	{theFiller, dst, starved, join(copies[1:], staged[2:]), either},

	{theHost, src, killed, join(copies[1:], freezing[1:], sourceHold[:1]), withHost},
	{theHost, src, killed, sourceHold[5:], rescued},
	{theHost, src, killed, join(ran[1:2], confirmSrc[1:2]), there},
	{theHost, dst, killed, join(copies[1:], staged[2:], targetHold[:1]), here},
	{theHost, dst, killed, join(decidedDst[2:], ran[1:2]), here},
}

// points are rows, case by case.
func points(rows []row) (all []point) {
	for _, row := range rows {
		for _, at := range row.at {
			all = append(all, point{at, row.who, row.role, row.what, row.ends})
		}
	}
	return all
}
