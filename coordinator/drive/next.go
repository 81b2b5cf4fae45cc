package drive

import (
	"fmt"
	"time"

	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Verb is what an action does.
type Verb string

const (
	Open    Verb = "open"     // open a host's session
	Look    Verb = "look"     // ask a host how its session stands
	CutOver Verb = "cut over" // tell the source that it may freeze
	Limit   Verb = "limit"    // tell the source what it may send
	Decide  Verb = "decide"   // deliver the verdict
	Confirm Verb = "confirm"  // end a committed session
	Record  Verb = "record"   // propose Change
	Wake    Verb = "wake"     // decide again at At
)

// Action is one thing to do now.
type Action struct {
	Do      Verb
	Role    migration.Role // of the host it is done on
	Verdict migration.Verdict
	Epoch   migration.Epoch
	Change  record.Change
	Limit   int64     // bytes a second, 0 is none
	At      time.Time // wake: when; look: when it was asked
}

// How long the driver bears with a host that does not answer before the verdict, and with a cut-over that does not end.
const (
	patienceCopying = 30 * time.Second // the copy needs no coordinator: a worker may come back
	patienceFrozen  = 5 * time.Second  // the tree stands still
	quiet           = 2 * time.Second  // a host that has said nothing for so long is asked
	// A cut-over that takes ten times as long as expected, and this long, does not end by itself any more: the link died, say, while
	// the tree was frozen. Nothing is wrong with the tree, so it goes on where it is.
	leastFreezeLimit = 30 * time.Second
)

// Next says what is to be done. It is pure: the same view gives the same actions, and an action that is already under way is
// asked for again until its effect is in the view.
func Next(v View) []Action {
	return append(v.protocol(), v.keepInTouch()...)
}

func (v *View) protocol() []Action {
	switch m := v.Migration; m.Phase {
	case migration.Admitted, migration.Copying, migration.Frozen, migration.Staged, migration.Held:
		if reason, mend := v.hopeless(); reason != "" {
			return []Action{v.step(record.Step{Events: []migration.Event{migration.EvAbort}, Reason: reason, Next: mend})}
		}
		return append(v.forward(), v.wakeForPatience()...)
	case migration.Committed:
		return v.release()
	case migration.Released:
		return v.probation()
	case migration.Aborted:
		return v.undoAbort()
	case migration.Reclaimed:
		return v.undoCommit()
	}
	return nil
}

// forward goes on towards the verdict. Nothing here waits for a poll: each line follows from an event of a host.
func (v *View) forward() []Action {
	m := v.Migration
	if m.Phase == migration.Admitted {
		switch {
		case !v.Target.Known:
			return []Action{{Do: Open, Role: migration.Target, Epoch: m.Epoch}}
		case !v.Source.Known:
			return []Action{{Do: Open, Role: migration.Source, Epoch: m.Epoch}}
		}
		return []Action{v.step(record.Step{Events: []migration.Event{migration.EvBegin}})}
	}
	if looks := v.unknown(); len(looks) > 0 {
		return looks
	}
	source := rank[v.Source.step()]
	if m.Phase == migration.Copying {
		if source == rank[workerapi.StepReady] {
			p := v.Source.Session.Progress
			return []Action{v.step(record.Step{Events: []migration.Event{migration.EvFreeze}, Note: v.grantNote(), Predicted: p.BlackoutGuess, Expected: p.Expected})}
		}
		return v.limit()
	}
	if source < rank[workerapi.StepFrozen] {
		if v.Source.CutOver {
			return nil // it has agreed; its next word is that it is frozen
		}
		return []Action{{Do: CutOver, Role: migration.Source, Epoch: m.Epoch}}
	}
	if v.Target.step() != workerapi.StepHeld {
		return nil
	}
	return []Action{v.step(record.Step{Events: toCommit[m.Phase], Note: v.digestNote()})}
}

// limit tells a source that copies of a limit that was changed meanwhile.
func (v *View) limit() []Action {
	wanted, has := max(0, v.Migration.Options.Bandwidth), v.Source.Session.Progress.Bandwidth
	if v.Source.Limited != nil {
		has = *v.Source.Limited
	}
	if wanted == has || v.Source.step() != workerapi.StepOpen {
		return nil
	}
	return []Action{{Do: Limit, Role: migration.Source, Limit: wanted}}
}

// grantNote says that the freeze was granted and, if the blackout will be longer than asked for, why it was asked for.
func (v *View) grantNote() string {
	if note := v.Source.Session.Progress.Note; note != "" {
		return "freeze granted, " + note
	}
	return "freeze granted"
}

// toCommit is the way from each phase of the cut-over to COMMIT. What the hosts reached together is recorded together: one entry
// of the log, one round to the majority, stands between HELD and the verdict.
var toCommit = map[migration.Phase][]migration.Event{
	migration.Frozen: {migration.EvStaged, migration.EvHeld, migration.EvCommit},
	migration.Staged: {migration.EvHeld, migration.EvCommit},
	migration.Held:   {migration.EvCommit},
}

func (v *View) digestNote() string {
	if d := v.Target.Session.Digest; d != "" {
		return "digest " + d
	}
	return ""
}

// release delivers COMMIT: to the target at once, to the source when the target runs or does not answer.
func (v *View) release() []Action {
	m := v.Migration
	if proof := v.targetDead(); proof != "" {
		return []Action{v.reclaim(proof)}
	}
	if v.Target.step() == workerapi.StepReleased {
		if !v.Source.Known && v.Source.Trouble == nil { // a new leader does not know since when the source is frozen
			return []Action{{Do: Look, Role: migration.Source}}
		}
		released := v.step(record.Step{Events: []migration.Event{migration.EvReleased}, Blackout: v.blackout()})
		return append([]Action{released}, v.tellSource()...)
	}
	acts := []Action{{Do: Decide, Role: migration.Target, Verdict: migration.Commit, Epoch: m.Epoch + 1}}
	if !v.Target.Known { // a new leader: a target that cannot release says only in its state whether the tree ever ran there
		acts = append(acts, Action{Do: Look, Role: migration.Target})
	}
	if v.Target.Trouble == nil {
		return acts
	}
	acts = append(acts, v.tellSource()...)
	if v.Target.Lost.IsZero() {
		return append(acts, v.waitingFor(v.Target)...)
	}
	return append(acts, v.note("%s has not answered since COMMIT and may run %s: the source stays held until it is known", m.Target, m.Workload)...)
}

// tellSource lets the source know of COMMIT, if it does not.
func (v *View) tellSource() []Action {
	if v.Source.Session.Verdict == migration.Commit || v.Source.ended() {
		return nil
	}
	return []Action{{Do: Decide, Role: migration.Source, Verdict: migration.Commit, Epoch: v.Migration.Epoch + 1}}
}

// probation watches the target; once it has lived long enough the source is ended, then the target's images are dropped.
func (v *View) probation() []Action {
	m := v.Migration
	if proof := v.targetDead(); proof != "" && !m.ProbationOver {
		return []Action{v.reclaim(proof)}
	}
	acts := v.tellSource()
	end := m.Entered(migration.Released).Add(probationOf(m))
	switch {
	case !m.ProbationOver && v.Now.Before(end):
		if !v.Target.Known {
			acts = append(acts, Action{Do: Look, Role: migration.Target})
		}
		return append(acts, Action{Do: Wake, At: end})
	case !m.ProbationOver && (!v.Target.Lost.IsZero() || v.Target.Asked.Before(end)):
		// Nobody has asked the target after the end whether it lives: the source stays held until somebody has, and knows.
		acts = append(acts, Action{Do: Look, Role: migration.Target})
		if !v.Target.Lost.IsZero() {
			acts = append(acts, v.note("%s does not answer: the source stays held until %s is known to live there", m.Target, m.Workload)...)
		}
		return acts
	case !m.ProbationOver && v.Target.step() != workerapi.StepReleased:
		// It answers, and does not say that the tree runs there. A host that has rebooted is known for it only by its next heartbeat.
		says := "knows nothing of this migration"
		if !v.Target.Absent {
			says = "does not say that the tree lives there: " + v.Target.Session.Error
		}
		return append(append(acts, v.note("%s %s; look there whether %s runs: the source stays held", m.Target, says, m.Workload)...),
			Action{Do: Wake, At: v.Now.Add(time.Second)}, Action{Do: Look, Role: migration.Target})
	case !m.ProbationOver && v.Target.Session.Filling != nil:
		return append(acts, v.note("%s is still filling in the memory of %s: the source stays held until it has", m.Target, m.Workload)...)
	case !m.ProbationOver:
		return append(acts, Action{Do: Record, Change: record.Note{Migration: m.ID, Phase: m.Phase, ProbationOver: true, Answers: v.answers()}})
	case len(acts) > 0:
		return append(acts, v.waitingFor(v.Source)...)
	case !v.Source.ended():
		return append(v.waitingFor(v.Source), Action{Do: Confirm, Role: migration.Source, Epoch: m.Epoch + 1})
	case !v.Target.ended():
		return append(v.waitingFor(v.Target), Action{Do: Confirm, Role: migration.Target, Epoch: m.Epoch + 1})
	}
	return []Action{v.step(record.Step{Events: []migration.Event{migration.EvConfirm}})}
}

// undoAbort has both hosts undo, at once: before COMMIT no code of the tree has run on the target.
func (v *View) undoAbort() []Action {
	var acts []Action
	var open []Side
	for _, role := range []migration.Role{migration.Source, migration.Target} {
		if s := v.side(role); !s.undone() {
			acts = append(acts, Action{Do: Decide, Role: role, Verdict: migration.Abort, Epoch: v.Migration.Epoch})
			open = append(open, *s)
		}
	}
	if len(acts) == 0 {
		acts = append(acts, v.step(record.Step{Events: []migration.Event{migration.EvUndone}}))
	}
	return append(acts, v.waitingFor(open...)...)
}

// undoCommit brings the source back after RECLAIM, once nothing of the tree is left on the target: a dead root may have left
// children behind.
func (v *View) undoCommit() []Action {
	reclaim := func(s Side, role migration.Role) []Action {
		return append(v.waitingFor(s), Action{Do: Decide, Role: role, Verdict: migration.Reclaim, Epoch: v.Migration.Epoch + 2})
	}
	switch {
	case !v.Target.undone() && !v.Target.Rebooted:
		return reclaim(v.Target, migration.Target)
	case !v.Source.undone():
		return reclaim(v.Source, migration.Source)
	}
	return []Action{v.step(record.Step{Events: []migration.Event{migration.EvUndone}})}
}

// keepInTouch looks at hosts that have been quiet: a host that died says nothing on its open stream either.
func (v *View) keepInTouch() []Action {
	if v.Migration.Phase.Final() {
		return nil
	}
	var acts []Action
	for _, role := range []migration.Role{migration.Source, migration.Target} {
		s := v.side(role)
		if !s.Known || s.Absent || s.Removed || s.undone() || s.ended() {
			continue
		}
		if at := s.Seen.Add(quiet); v.Now.Before(at) {
			acts = append(acts, Action{Do: Wake, At: at})
		} else {
			acts = append(acts, Action{Do: Look, Role: role})
		}
	}
	return acts
}

// unknown asks the hosts of which nothing is known how they stand: a new leader's first question.
func (v *View) unknown() []Action {
	var acts []Action
	for _, role := range []migration.Role{migration.Source, migration.Target} {
		if s := v.side(role); !s.Known {
			acts = append(acts, Action{Do: Look, Role: role})
		}
	}
	return acts
}

// step is the action that proposes s from where the migration stands now.
func (v *View) step(s record.Step) Action {
	s.Migration, s.From, s.Epoch, s.Answers = v.Migration.ID, v.Migration.Phase, v.Epoch, v.answers()
	return Action{Do: Record, Change: s}
}

func (v *View) reclaim(proof string) Action {
	return v.step(record.Step{Events: []migration.Event{migration.EvReclaim}, Reason: proof, Next: "see the workload's log on " + v.Migration.Target})
}

// blackout is how long no copy of the tree ran: as the target measured it from what the source told it with its last byte,
// which needs no common clock and leaves out one way over the link; else as this coordinator saw it, the ways of the hosts'
// answers included.
func (v *View) blackout() time.Duration {
	if measured := v.Target.Session.FrozenFor; measured > 0 {
		return measured
	}
	if v.Source.FrozenAt.IsZero() || v.Target.ReleasedAt.IsZero() {
		return 0
	}
	return v.Target.ReleasedAt.Sub(v.Source.FrozenAt)
}

// note says in the record what the migration waits for, unless it says so already.
func (v *View) note(format string, args ...any) []Action {
	text := fmt.Sprintf(format, args...)
	if v.Migration.Note == text {
		return nil
	}
	return []Action{{Do: Record, Change: record.Note{Migration: v.Migration.ID, Phase: v.Migration.Phase, Note: text}}}
}

// waitingFor notes that the migration waits for a host in trouble: the first of them, for two notes would take each other's place for ever.
func (v *View) waitingFor(sides ...Side) []Action {
	for _, s := range sides {
		if s.Trouble == nil || !s.Lost.IsZero() && v.Now.Sub(s.Lost) < patienceFrozen {
			continue
		}
		why := s.Trouble.Error()
		if next := errs.NextOf(s.Trouble); next != "" {
			why += "; " + next
		}
		return v.note("waiting for host %s: %s", s.Host, why)
	}
	return nil
}

func probationOf(m record.Migration) time.Duration {
	if m.Options.Probation > 0 {
		return m.Options.Probation
	}
	return migration.DefaultProbation
}
