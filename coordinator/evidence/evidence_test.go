package evidence

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

var t0 = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func clock(n int) time.Time { return t0.Add(time.Duration(n) * time.Second) }

func source(n int, s workerapi.Step) api.Answer {
	return api.Answer{Host: "alpha", Role: migration.Source, Heard: clock(n), Boot: "boot-a", Step: s, FrozenAt: clock(3), Digest: "d"}
}

func target(n int, s workerapi.Step) api.Answer {
	a := api.Answer{Host: "beta", Role: migration.Target, Heard: clock(n), Boot: "boot-b", Step: s, Digest: "d"}
	if s == workerapi.StepReleased {
		a.Alive, a.ReleasedAt = true, clock(5)
	}
	return a
}

func entry(n int, p migration.Phase, owner string, e migration.Epoch, answers ...api.Answer) api.Transition {
	return api.Transition{Phase: p, Time: clock(n), Index: uint64(100 + n), Term: 2, By: "coordinator:c1", Owner: owner, Epoch: e, Answers: answers}
}

// moved is a migration of w from alpha to beta that succeeded.
func moved() record.Migration {
	passed := entry(7, migration.Released, "beta", 5, source(7, workerapi.StepStaged), target(7, workerapi.StepReleased))
	return record.Migration{
		ID: "m", Workload: "w", Source: "alpha", Target: "beta", SourceBoot: "boot-a", TargetBoot: "boot-b", Epoch: 4, Phase: migration.Done,
		By: "operator:ada:operator", Blackout: 213 * time.Millisecond, ProbationOver: true, Passed: &passed,
		Transitions: []api.Transition{
			entry(1, migration.Admitted, "alpha", 4), entry(2, migration.Copying, "alpha", 4), entry(3, migration.Frozen, "alpha", 4),
			entry(4, migration.Staged, "alpha", 4), entry(4, migration.Held, "alpha", 4),
			entry(4, migration.Committed, "beta", 5, source(4, workerapi.StepStaged), target(4, workerapi.StepHeld)),
			entry(5, migration.Released, "beta", 5, source(5, workerapi.StepStaged), target(5, workerapi.StepReleased)),
			entry(8, migration.Done, "beta", 5, source(8, workerapi.StepDone), target(8, workerapi.StepDone)),
		},
	}
}

func has(lines []string, part string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, part) })
}

func TestAMoveThatSucceededIsWhollyKnown(t *testing.T) {
	e := Of(moved())
	if !e.Complete() {
		t.Fatalf("not complete: unknown %q, wrong %q", e.Unknown, e.Wrong)
	}
	for _, want := range []string{
		"one verdict: COMMIT at index 104, term 2, epoch 5: beta owns w",
		"alpha held w from 2026-01-01 12:00:03.000 UTC (its clock) and said so last at 2026-01-01 12:00:07.000",
		"alpha could be told to end its tree only after index 107",
		"alpha had ended its part by 2026-01-01 12:00:08.000",
		"complete there and held, no instruction run: digest d, as alpha had sent it",
		"first instruction on beta ran by 2026-01-01 12:00:05.000 UTC (its clock), 213ms after the last on alpha",
		"the tree lived on beta at the end of probation",
	} {
		if !has(e.Holds, want) {
			t.Errorf("%q is not shown by %q", want, e.Holds)
		}
	}
	if !e.HeldFrom.Equal(clock(3)) || !e.HeldLast.Equal(clock(7)) || !e.EndedBy.Equal(clock(8)) || !e.Released.Equal(clock(5)) {
		t.Errorf("held from %s, last %s, ended %s; released %s", e.HeldFrom, e.HeldLast, e.EndedBy, e.Released)
	}
	if len(e.Entries) != 9 || e.Entries[7].Index != 107 {
		t.Errorf("the end of probation does not stand among the entries: %+v", e.Entries)
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(m *record.Migration)
		want string
	}{
		"the target's word at COMMIT": {func(m *record.Migration) { m.Transitions[5].Answers = m.Transitions[5].Answers[:1] }, "what beta had said when COMMIT was proposed"},
		"a digest":                    {func(m *record.Migration) { m.Transitions[5].Answers[1].Digest = "" }, "the digest of what beta had received"},
		"the first instruction": {func(m *record.Migration) {
			m.Transitions[6].Answers[1].ReleasedAt, m.Passed.Answers[1].ReleasedAt = time.Time{}, time.Time{}
		}, "when the tree's first instruction ran on beta"},
		"who said what in the end":   {func(m *record.Migration) { m.Transitions[7].Answers = nil }, "what alpha had said when it ended"},
		"a host that was removed":    {func(m *record.Migration) { m.Transitions[7].Answers[0].Removed = true }, "alpha: the host was removed"},
		"a session that is gone":     {func(m *record.Migration) { m.Transitions[7].Answers[0].Absent = true }, "knew nothing of this migration any more"},
		"its end":                    {func(m *record.Migration) { m.Phase, m.Transitions = migration.Released, m.Transitions[:7] }, "the end: it is RELEASED"},
		"what an older drover wrote": {func(m *record.Migration) { m.Transitions[2] = api.Transition{Phase: migration.Frozen, Index: 103} }, "by an older drover"},
	} {
		t.Run(name, func(t *testing.T) {
			m := moved()
			c.lose(&m)
			if e := Of(m); e.Complete() || !has(e.Unknown, c.want) {
				t.Errorf("%q is not among what is not known: %q", c.want, e.Unknown)
			}
		})
	}
}

func TestWhatMustNotBeIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(m *record.Migration)
		want  string
	}{
		"COMMIT before the target was held":        {func(m *record.Migration) { m.Transitions[5].Answers[1].Step = workerapi.StepStaged }, `was "staged", not held`},
		"another image":                            {func(m *record.Migration) { m.Transitions[5].Answers[0].Digest = "x" }, "beta had digest d, alpha had sent x"},
		"COMMIT at the wrong epoch":                {func(m *record.Migration) { m.Transitions[5].Epoch = 7 }, "gives w to beta at epoch 7"},
		"an epoch that falls":                      {func(m *record.Migration) { m.Transitions[7].Epoch = 4 }, "comes after RELEASED"},
		"an owner that no verdict made":            {func(m *record.Migration) { m.Transitions[1].Owner = "beta" }, "from alpha to beta within epoch 4"},
		"a step that the protocol has not":         {func(m *record.Migration) { m.Transitions = slices.Delete(m.Transitions, 4, 5) }, "from STAGED to COMMITTED"},
		"two verdicts":                             {func(m *record.Migration) { m.Transitions[6].Phase = migration.Aborted }, "it has 2 verdicts"},
		"a source that ended before probation had": {func(m *record.Migration) { m.Passed, m.ProbationOver = nil, false }, "without an entry that says that probation was over"},
		"an end of a host that may have booted": {func(m *record.Migration) {
			m.TargetBoot, m.Transitions[7].Answers[1].Step = "", workerapi.StepReleased
		}, `while beta was "released"`},
		"an end that a host had not said": {func(m *record.Migration) { m.Transitions[7].Answers[0].Step = workerapi.StepStaged }, `while alpha was "staged"`},
	} {
		t.Run(name, func(t *testing.T) {
			m := moved()
			c.spoil(&m)
			if e := Of(m); e.Complete() || !has(e.Wrong, c.want) {
				t.Errorf("%q was not found: %q", c.want, e.Wrong)
			}
		})
	}
}
