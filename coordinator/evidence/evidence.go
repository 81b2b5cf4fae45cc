package evidence

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/migration"
	"drover/internal/safety"
	workerapi "drover/worker/api"
)

// Of is the evidence on m. Replicas are left to the caller.
func Of(m record.Migration) api.Evidence {
	c := &inquiry{m: m, Evidence: api.Evidence{
		Migration: m.ID, Workload: m.Workload, Source: m.Source, Target: m.Target, SourceBoot: m.SourceBoot, TargetBoot: m.TargetBoot,
		By: m.By, Epoch: m.Epoch, Phase: m.Phase, Verdict: m.Verdict(), Reason: m.Reason, Waiting: m.Note, Blackout: m.Blackout,
		Entries: entries(m), Replicas: []api.Replica{}, Holds: []string{}, Unknown: []string{}, Wrong: []string{}, Over: m.Phase.Final(),
	}}
	c.order()
	c.verdicts()
	c.source()
	c.target()
	c.end()
	c.words()
	return c.Evidence
}

// entries are all entries of the log about m, in their order.
func entries(m record.Migration) []api.Transition {
	all := slices.Clone(m.Transitions)
	if m.Passed != nil {
		all = append(all, *m.Passed)
	}
	slices.SortStableFunc(all, func(a, b api.Transition) int { return cmp.Compare(a.Index, b.Index) })
	return all
}

// inquiry gathers what follows from one migration's entries.
type inquiry struct {
	m record.Migration
	api.Evidence
}

func (c *inquiry) shows(format string, args ...any) {
	c.Holds = append(c.Holds, fmt.Sprintf(format, args...))
}
func (c *inquiry) lacks(format string, args ...any) {
	c.Unknown = append(c.Unknown, fmt.Sprintf(format, args...))
}
func (c *inquiry) wrong(format string, args ...any) {
	c.Wrong = append(c.Wrong, fmt.Sprintf(format, args...))
}

// order holds the entries to the protocol: phases by the table, indexes and terms that never fall, epochs and owners by the safety rules.
func (c *inquiry) order() {
	old := false
	for i, t := range c.m.Transitions {
		if t.Term == 0 || t.Owner == "" {
			old = true
		}
		if i == 0 {
			if t.Phase != migration.Admitted {
				c.wrong("it began as %s at index %d, not as %s", t.Phase, t.Index, migration.Admitted)
			}
			continue
		}
		before := c.m.Transitions[i-1]
		if !slices.ContainsFunc(migration.Table, func(r migration.Row) bool { return r.From == before.Phase && r.To == t.Phase }) {
			c.wrong("it went from %s to %s at index %d: the protocol has no such step", before.Phase, t.Phase, t.Index)
		}
		if t.Index < before.Index || t.Term < before.Term {
			c.wrong("%s at index %d (term %d) comes after %s at index %d (term %d)", t.Phase, t.Index, t.Term, before.Phase, before.Index, before.Term)
		}
		if err := safety.EpochRises(before.Owner, before.Epoch, t.Owner, t.Epoch); err != nil && before.Owner != "" && t.Owner != "" {
			c.wrong("%s at index %d comes after %s at index %d: %v", t.Phase, t.Index, before.Phase, before.Index, err)
		}
	}
	if old {
		c.lacks("terms, owners and what the hosts said: it was recorded by an older drover")
	}
}

// verdictPhases are the phases that a verdict brings, with what it makes of the workload.
var verdictPhases = map[migration.Phase]struct {
	verdict migration.Verdict
	raises  migration.Epoch
}{
	migration.Committed: {migration.Commit, 1}, migration.Aborted: {migration.Abort, 0}, migration.Reclaimed: {migration.Reclaim, 2},
}

func (c *inquiry) verdicts() {
	var given []api.Transition
	for _, t := range c.m.Transitions {
		v, ok := verdictPhases[t.Phase]
		if !ok {
			continue
		}
		given = append(given, t)
		owner := c.m.Source
		if v.verdict == migration.Commit {
			owner = c.m.Target
		}
		if want := c.m.Epoch + v.raises; t.Owner != "" && (t.Owner != owner || t.Epoch != want) {
			c.wrong("%s at index %d gives %s to %s at epoch %d, not to %s at epoch %d", name(v.verdict), t.Index, c.m.Workload, t.Owner, t.Epoch, owner, want)
		}
		c.shows("%s: %s at index %d, term %d, epoch %d: %s owns %s from there on; proposed %s by %s",
			[]string{"one verdict", "a second verdict, which only a proved death allows"}[min(len(given)-1, 1)],
			name(v.verdict), t.Index, t.Term, c.m.Epoch+v.raises, owner, c.m.Workload, at(t.Time), orNobody(t.By))
	}
	switch {
	case len(given) == 0:
		c.shows("no verdict: %s owns %s, at epoch %d, and nothing of it may run on %s", c.m.Source, c.m.Workload, c.m.Epoch, c.m.Target)
	case len(given) > 1 && (len(given) > 2 || given[0].Phase != migration.Committed || given[1].Phase != migration.Reclaimed):
		c.wrong("it has %d verdicts", len(given))
	}
}

func name(v migration.Verdict) string {
	return map[migration.Verdict]string{migration.Commit: "COMMIT", migration.Abort: "ABORT", migration.Reclaim: "RECLAIM"}[v]
}

// entry is the entry by which the migration entered p.
func (c *inquiry) entry(p migration.Phase) (api.Transition, bool) {
	for _, t := range c.m.Transitions {
		if t.Phase == p {
			return t, true
		}
	}
	return api.Transition{}, false
}

// answer is what the host of that role had said when t was proposed.
func answer(t api.Transition, role migration.Role) (api.Answer, bool) {
	for _, a := range t.Answers {
		if a.Role == role {
			return a, true
		}
	}
	return api.Answer{}, false
}

// source follows the source's tree: from when it was held, until when it said so, and when it ended.
func (c *inquiry) source() {
	froze, frozen := c.entry(migration.Frozen)
	for _, t := range c.Entries {
		a, ok := answer(t, migration.Source)
		if !ok {
			continue
		}
		if c.HeldFrom.IsZero() {
			c.HeldFrom = a.FrozenAt
		}
		if holds(a) {
			c.HeldLast = a.Heard
		}
		if a.Step == workerapi.StepDone && t.Phase == migration.Done {
			c.EndedBy = a.Heard
		}
	}
	commit, committed := c.entry(migration.Committed)
	switch {
	case !frozen:
		c.shows("%s was never told to freeze %s: it ran on there", c.m.Source, c.m.Workload)
		return
	case c.HeldFrom.IsZero() && committed:
		c.lacks("when %s froze %s: no entry has its word on it; it was told to after index %d", c.m.Source, c.m.Workload, froze.Index)
	case c.HeldFrom.IsZero():
		c.shows("%s was allowed to freeze %s at index %d, and is not known to have done so", c.m.Source, c.m.Workload, froze.Index)
		return
	default:
		c.shows("%s held %s from %s (its clock) and said so last at %s", c.m.Source, c.m.Workload, at(c.HeldFrom), at(c.HeldLast))
	}
	passed := c.m.Passed
	switch {
	case !committed:
	case passed == nil && c.m.ProbationOver:
		c.lacks("at which entry probation was over: it was recorded by an older drover")
	case passed == nil && c.m.Phase == migration.Done:
		c.wrong("it ended without an entry that says that probation was over")
	case passed != nil && passed.Index < commit.Index:
		c.wrong("probation was over at index %d, before COMMIT at index %d", passed.Index, commit.Index)
	case passed != nil:
		c.shows("%s could be told to end its tree only after index %d, at %s", c.m.Source, passed.Index, at(passed.Time))
	}
	if !c.EndedBy.IsZero() {
		c.shows("%s had ended its part by %s", c.m.Source, at(c.EndedBy))
	}
}

// holds says whether a source had said that its tree was held.
func holds(a api.Answer) bool {
	switch a.Step {
	case workerapi.StepFrozen, workerapi.StepStaged:
		return true
	case workerapi.StepFailed:
		return !a.FrozenAt.IsZero()
	}
	return false
}

func at(t time.Time) string {
	if t.IsZero() {
		return "a time that is not recorded"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 MST")
}

func orNobody(by string) string {
	if by == "" {
		return "somebody who is not recorded"
	}
	return by
}
