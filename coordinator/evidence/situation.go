package evidence

import (
	"fmt"
	"slices"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Word is what a host has said just now, asked for a migration that may need a person.
type Word struct {
	api.Answer
	Early bool // it is silent, and has not been for long enough that this says anything
	Lives bool // it lists the workload as living there, at the epoch that a commit brings or a later one
}

// answers says whether the host speaks, of whatever.
func (w Word) answers() bool { return w.Silent.IsZero() && !w.Removed }

// Assess says what m waits for and what a person may decide, given what both hosts have said just now. It is pure, and the only place
// where it is judged whether the evidence bears a decision; the record knows only whether the phase does.
func Assess(m record.Migration, w record.Workload, source, target Word) api.Situation {
	a := &assessment{m: m, source: source, target: target, Situation: api.Situation{
		Migration: m.ID, Workload: m.Workload, Source: m.Source, Target: m.Target, Epoch: w.Epoch, Owner: w.Owner, Phase: m.Phase,
		Verdict: m.Verdict(), Waiting: m.Note, Answers: []api.Answer{source.Answer, target.Answer}, Choices: []api.Choice{}, Because: []string{},
	}}
	switch {
	case m.Phase.Final():
		a.because("it has ended: nothing is left to decide")
	case !m.Phase.Decided():
		a.because("it has no verdict yet, and gets one by itself: the coordinators abort what does not go on, at %s at the latest; drover abort %s does so now", at(m.Deadline), m.ID)
	case m.Phase == migration.Committed, m.Phase == migration.Released && !m.ProbationOver:
		a.undetermined()
	case m.Phase == migration.Released:
		a.ending()
	default:
		a.undoing()
	}
	return a.Situation
}

type assessment struct {
	m              record.Migration
	source, target Word
	api.Situation
}

func (a *assessment) because(format string, args ...any) {
	a.Because = append(a.Because, fmt.Sprintf(format, args...))
}

func (a *assessment) may(d api.Decision, host, first, then string) {
	a.Choices = append(a.Choices, api.Choice{Decision: d, Host: host, First: first, Then: then})
}

// speaks says whether a host can say itself how it stands, and why nobody else may.
func (a *assessment) speaks(w Word, boot string) bool {
	switch {
	case w.Removed:
		a.because("host %s is no longer in the cluster: the coordinators wait for nothing from it", w.Host)
	case w.Early:
		a.because("host %s does not answer since %s, which is too short to say that it stays so: ask again in a few seconds", w.Host, at(w.Silent))
	case boot != "" && w.Boot != "" && boot != w.Boot:
		a.because("host %s has booted since admission (boot id %s, then %s): that proves every tree of then dead, without anybody's word", w.Host, boot, w.Boot)
	case w.answers() && w.Error != "":
		a.because("host %s answers, though not as it should: %s; mend its worker, which then says itself what runs there", w.Host, w.Error)
	case w.answers():
		a.because("host %s answers: %s; it says itself what becomes of its part", w.Host, stepOf(w))
	default:
		return false
	}
	return true
}

func stepOf(w Word) string {
	if w.Absent {
		return "it knows nothing of this migration"
	}
	return fmt.Sprintf("its session is %q", w.Step)
}

// undetermined is after COMMIT while the source is still held: everything hangs on whether the target's tree lives.
func (a *assessment) undetermined() {
	m := a.m
	ran := "may have run"
	if m.Phase == migration.Released {
		ran = "ran"
	}
	first := fmt.Sprintf("power %s off and keep it off, by its management board, its hypervisor or its plug; that its network is cut is not enough: clients near it may still reach it, and it may come back. "+
		"If it can be booted again, do that instead and start its worker: another boot id is proof, and nobody's word is needed", m.Target)
	switch {
	case a.target.Absent && a.target.answers() && a.target.Lives:
		a.because("host %s knows nothing of this migration, and says that %s lives there: only that it does may be decided", m.Target, m.Workload)
		a.alive(fmt.Sprintf("look on %s that it is this tree, and that it serves", m.Target))
		return
	case a.target.Absent && a.target.answers():
		a.because("host %s answers, and knows nothing of this migration: its state directory was lost or is another one, and a tree may run there that its worker does not know", m.Target)
		first = fmt.Sprintf("look on %s for processes of %s, and end them all", m.Target, m.Workload)
	case a.speaks(a.target, m.TargetBoot):
		return
	default:
		a.because("host %s does not answer since %s, and COMMIT gave %s to it: the tree %s there and may run now. %s still holds its own, frozen, whole and with its connections", m.Target, at(a.target.Silent), m.Workload, ran, m.Source)
	}
	a.may(api.TargetIsDead, m.Target, first, fmt.Sprintf(
		"RECLAIM: %s owns %s again, at epoch %d, and lets it go on as it was when it was frozen. What the tree has done on %s since is lost. If it still runs there, there are two", m.Source, m.Workload, m.Epoch+2, m.Target))
	a.alive(fmt.Sprintf("log in on %s, or ask it as a client, and see that %s runs and serves there", m.Target, m.Workload))
}

func (a *assessment) alive(first string) {
	a.may(api.TargetIsAlive, a.m.Target, first, fmt.Sprintf("%s ends its held tree, and %s's is the only one. If it does not live, it is lost", a.m.Source, a.m.Target))
}

// ending is after probation: the source is to end its tree, then the target to drop its images.
func (a *assessment) ending() {
	m := a.m
	if !m.Fenced(migration.Source) && a.source.Step != workerapi.StepDone && !a.source.Absent && !a.speaks(a.source, "") {
		a.because("host %s does not answer since %s: it has not said that its tree has ended. It is held there without a say, and can never run again but by a person's doing", m.Source, at(a.source.Silent))
		a.may(api.SourceIsDead, m.Source, "nothing: it makes nobody run. See that the host will not be back soon",
			fmt.Sprintf("the migration ends, and %s can be moved again. Should %s come back, it ends its held tree then", m.Workload, m.Source))
	}
	if !m.Fenced(migration.Target) && a.target.Step != workerapi.StepDone && !a.target.Absent && !a.speaks(a.target, "") {
		a.because("host %s does not answer since %s. Its tree was alive through probation, and %s was or may have been ended since: it cannot be brought back", m.Target, at(a.target.Silent), m.Source)
		a.may(api.TargetIsDead, m.Target, "nothing: it makes nobody run",
			fmt.Sprintf("the migration ends, and %s stays %s's: it is as lost as any workload of a host that has died", m.Workload, m.Target))
	}
}

// undoing is after ABORT and RECLAIM: both hosts are to undo their part.
func (a *assessment) undoing() {
	m := a.m
	if !m.Fenced(migration.Source) && a.source.Step != workerapi.StepUndone && !a.source.Absent && !a.speaks(a.source, "") {
		a.because("host %s does not answer since %s, and %s is its own: the tree runs there, is held, or is lost with it", m.Source, at(a.source.Silent), m.Workload)
		a.may(api.SourceIsDead, m.Source, "nothing: it makes nobody run. See that the host will not be back soon", fmt.Sprintf(
			"the migration ends, and %s stays %s's: as lost as any workload of a host that has died. Should %s come back after all, its tree goes on there", m.Workload, m.Source, m.Source))
	}
	if !m.Fenced(migration.Target) && a.target.Step != workerapi.StepUndone && !a.target.Absent && !a.speaks(a.target, "") {
		a.because("host %s does not answer since %s: what is left of the copy there was not yet removed", m.Target, at(a.target.Silent))
		first, then := "nothing: the copy there has never had leave to run, and never will", "the migration ends"
		if m.Phase == migration.Reclaimed {
			first = fmt.Sprintf("see that %s is off, or that nothing of %s runs there: its root is proved dead, children of it may be left", m.Target, m.Workload)
			then = m.Source + " lets its tree go on"
		}
		a.may(api.TargetIsDead, m.Target, first, fmt.Sprintf("%s. Should %s come back, it removes what it has of the tree then", then, m.Target))
	}
}

// Refusal is why the situation does not bear a decision, "" if it does.
func Refusal(s api.Situation, d api.Decision) string {
	if slices.ContainsFunc(s.Choices, func(c api.Choice) bool { return c.Decision == d }) {
		return ""
	}
	if len(s.Because) == 0 {
		return "it waits for nobody"
	}
	return s.Because[0]
}
