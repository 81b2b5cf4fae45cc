package evidence

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// target follows the target's copy: complete and held before COMMIT, running after it, alive through probation, or proved dead.
func (c *inquiry) target() {
	commit, committed := c.entry(migration.Committed)
	if !committed {
		c.shows("COMMIT was never given: %s never had leave to let %s run", c.m.Target, c.m.Workload)
		return
	}
	c.complete(commit)
	for _, t := range c.Entries {
		if a, ok := answer(t, migration.Target); ok && c.Released.IsZero() {
			c.Released = a.ReleasedAt
		}
	}
	if released, ok := c.entry(migration.Released); ok {
		c.ran(released)
	}
	if c.m.Passed != nil {
		c.lived(*c.m.Passed)
	}
	if reclaim, ok := c.entry(migration.Reclaimed); ok {
		c.shows("what proved that no copy runs on %s: %s", c.m.Target, c.m.Reason)
		if c.m.Passed != nil && c.m.Passed.Index < reclaim.Index {
			c.wrong("RECLAIM at index %d comes after probation was over at index %d: the source may have been dead", reclaim.Index, c.m.Passed.Index)
		}
		a, ok := answer(reclaim, migration.Target)
		if !ok {
			c.lacks("what %s had said when RECLAIM was proposed", c.m.Target)
		} else if c.m.Rebooted(migration.Target, a.Boot) {
			c.shows("%s had booted since: its boot id was %s, and at admission %s", c.m.Target, a.Boot, c.m.TargetBoot)
		}
	}
}

// complete looks at what COMMIT rested on.
func (c *inquiry) complete(commit api.Transition) {
	target, ok := answer(commit, migration.Target)
	if !ok {
		c.lacks("what %s had said when COMMIT was proposed", c.m.Target)
		return
	}
	switch {
	case target.Step != workerapi.StepHeld:
		c.wrong("COMMIT at index %d was proposed while %s was %q, not held", commit.Index, c.m.Target, target.Step)
		return
	case target.Digest == "":
		c.lacks("the digest of what %s had received", c.m.Target)
		return
	}
	source, _ := answer(commit, migration.Source)
	switch {
	case source.Digest == "":
		c.shows("before it %s had said (heard %s) that the tree was complete there and held, no instruction run: digest %s, which it had checked against what %s sent",
			c.m.Target, at(target.Heard), target.Digest, c.m.Source)
	case source.Digest != target.Digest:
		c.wrong("COMMIT at index %d: %s had digest %s, %s had sent %s", commit.Index, c.m.Target, target.Digest, c.m.Source, source.Digest)
	default:
		c.shows("before it %s had said (heard %s) that the tree was complete there and held, no instruction run: digest %s, as %s had sent it",
			c.m.Target, at(target.Heard), target.Digest, c.m.Source)
	}
}

func (c *inquiry) ran(released api.Transition) {
	switch {
	case c.Released.IsZero():
		c.lacks("when the tree's first instruction ran on %s: its worker was restarted, or is older; it ran before index %d, at %s", c.m.Target, released.Index, at(released.Time))
	case c.m.Blackout > 0:
		c.shows("the tree's first instruction on %s ran by %s (its clock), %s after the last on %s", c.m.Target, at(c.Released), c.m.Blackout.Round(100*time.Microsecond), c.m.Source)
	default:
		c.shows("the tree's first instruction on %s ran by %s (its clock)", c.m.Target, at(c.Released))
	}
}

func (c *inquiry) lived(passed api.Transition) {
	a, ok := answer(passed, migration.Target)
	switch {
	case slices.ContainsFunc(c.m.Resolutions, func(r api.Resolution) bool { return r.Decision == api.TargetIsAlive }): // words says whose
	case !ok:
		c.lacks("what %s had said when probation was over", c.m.Target)
	case a.Alive:
		c.shows("the tree lived on %s at the end of probation (heard %s)", c.m.Target, at(a.Heard))
	default: // it has done its work and ended, which is no reason to do it again
		c.shows("the tree had ended by itself on %s before the end of probation (heard %s)", c.m.Target, at(a.Heard))
	}
}

// end looks at what both hosts had said when the migration ended.
func (c *inquiry) end() {
	last := c.m.Transitions[len(c.m.Transitions)-1]
	if !c.Over {
		c.lacks("the end: it is %s since %s", c.m.Phase, at(last.Time))
		return
	}
	want := workerapi.StepDone
	if last.Phase == migration.RolledBack {
		want = workerapi.StepUndone
	}
	for _, role := range []migration.Role{migration.Source, migration.Target} {
		host := c.m.Host(role)
		a, ok := answer(last, role)
		switch {
		case c.m.Fenced(role): // words says by whom
		case !ok:
			c.lacks("what %s had said when it ended", host)
		case a.Removed:
			c.lacks("what became of %s on %s: the host was removed from the cluster before it had said", c.m.Workload, host)
		case a.Absent && last.Phase == migration.RolledBack:
			c.shows("%s had nothing left of it (heard %s)", host, at(a.Heard))
		case a.Absent:
			c.lacks("what became of %s on %s: it knew nothing of this migration any more (heard %s)", c.m.Workload, host, at(a.Heard))
		case a.Step == want:
			c.shows("%s had said that its part was over: %s (heard %s)", host, a.Step, at(a.Heard))
		case c.m.Rebooted(role, a.Boot):
			c.shows("%s had booted since admission: nothing of then lives there", host)
		default:
			c.wrong("it ended at index %d while %s was %q", last.Index, host, a.Step)
		}
	}
}

// words are the decisions that rest on nothing but a person's word.
func (c *inquiry) words() {
	for _, r := range c.m.Resolutions {
		text := fmt.Sprintf("%s vouched that the %s, %s, at index %d, term %d, %s: %s", r.By, strings.ReplaceAll(string(r.Decision), "-", " "), r.Host, r.Index, r.Term, at(r.Time), r.Reason)
		c.shows("%s", text)
		c.lacks("whether that is true: %s", text)
	}
}
