package migration

import "testing"

func TestNoVerdictIsEverChangedButByReclaim(t *testing.T) {
	for _, r := range Table {
		from, to := r.From.Verdict(), r.To.Verdict()
		switch {
		case from == Undecided, from == to:
		case from == Commit && to == Reclaim:
		case from == Reclaim && r.To == RolledBack:
		default:
			t.Errorf("%s --%s--> %s turns verdict %q into %q", r.From, r.On, r.To, from, to)
		}
	}
}

func TestEveryUndecidedPhaseCanAbort(t *testing.T) {
	for _, r := range Table {
		if r.From.Decided() {
			continue
		}
		if to, err := Next(r.From, EvAbort); err != nil || to != Aborted {
			t.Errorf("%s cannot abort: %v", r.From, err)
		}
	}
}

func TestFinalPhasesHaveNoWayOut(t *testing.T) {
	for _, r := range Table {
		if r.From.Final() {
			t.Errorf("%s is final but leads to %s", r.From, r.To)
		}
	}
}

func TestTableIsDeterministic(t *testing.T) {
	seen := map[[2]string]bool{}
	for _, r := range Table {
		k := [2]string{string(r.From), string(r.On)}
		if seen[k] {
			t.Errorf("%s has two rows for %s", r.From, r.On)
		}
		seen[k] = true
	}
}

func TestFinalStates(t *testing.T) {
	for _, c := range []struct {
		ask  FinalState
		op   Operation
		want FinalState
		ok   bool
	}{
		{"", OpPreDump, Running, true},
		{Dead, OpPreDump, "", false},
		{"", OpMigrationDump, Dead, true},
		{Running, OpMigrationDump, "", false},
		{"", OpSnapshotDump, Running, true},
		{"", OpRestore, Running, true},
		{Dead, OpRestore, "", false},
		{"frozen", OpRestore, "", false},
	} {
		got, err := c.ask.Resolve(c.op)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q for %s: got %q, %v", c.ask, c.op, got, err)
		}
	}
}
