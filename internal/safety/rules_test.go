package safety

import (
	"testing"

	"drover/internal/migration"
)

func TestRules(t *testing.T) {
	runs, held := Copy{"a", true, true}, Copy{"b", false, true}
	two := []Copy{runs, {"b", true, true}}
	for _, c := range []struct {
		what   string
		err    error
		broken bool
	}{
		{"one runs, one is held", OneRuns([]Copy{runs, held}), false},
		{"two run", OneRuns(two), true},
		{"the owner runs", OwnerRuns([]Copy{runs, held}, "a"), false},
		{"another runs", OwnerRuns([]Copy{runs, held}, "b"), true},
		{"one of two is ended", Kept([]Copy{runs, held}, []Copy{held}), false},
		{"the last is ended", Kept([]Copy{held}, nil), true},
		{"the last whole one is ended", Kept([]Copy{held, {"c", false, false}}, []Copy{{"c", false, false}}), true},
		{"there was none", Kept(nil, nil), false},
		{"settled", Settled([]Copy{runs}, "a"), false},
		{"settled elsewhere", Settled([]Copy{runs}, "b"), true},
		{"settled, but one is held", Settled([]Copy{runs, held}, "a"), true},
		{"settled, but with zeros in its memory", Settled([]Copy{{"a", true, false}}, "a"), true},
		{"nothing left", Settled(nil, "a"), true},
		{"a first verdict", VerdictStands(migration.Undecided, migration.Abort), false},
		{"reclaim after commit", VerdictStands(migration.Commit, migration.Reclaim), false},
		{"abort after commit", VerdictStands(migration.Commit, migration.Abort), true},
		{"commit after abort", VerdictStands(migration.Abort, migration.Commit), true},
		{"a new owner at a new epoch", EpochRises("a", 1, "b", 2), false},
		{"a new owner at the old epoch", EpochRises("a", 1, "b", 1), true},
		{"an older epoch", EpochRises("a", 2, "a", 1), true},
		{"an order of now", NotOlder(2, 2), false},
		{"an order of then", NotOlder(1, 2), true},
		{"committed when held", HeldFirst(true), false},
		{"committed before", HeldFirst(false), true},
		{"after probation", SourceKept(true, true), false},
		{"in probation", SourceKept(false, true), true},
		{"while filling", SourceKept(true, false), true},
	} {
		if (c.err != nil) != c.broken {
			t.Errorf("%s: %v", c.what, c.err)
		}
	}
}
