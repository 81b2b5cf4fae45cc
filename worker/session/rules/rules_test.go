package rules

import (
	"slices"
	"testing"

	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/journal"
)

// every session of interest: in both roles, at every step, with every verdict, held and not, failed and not.
func every(f func(Session)) {
	steps := []workerapi.Step{workerapi.StepOpen, workerapi.StepReady, workerapi.StepFrozen, workerapi.StepStaged, workerapi.StepHeld, workerapi.StepReleased, workerapi.StepDone, workerapi.StepUndone, workerapi.StepFailed}
	for _, role := range []migration.Role{migration.Source, migration.Target} {
		for _, step := range steps {
			for _, v := range []migration.Verdict{migration.Undecided, migration.Commit, migration.Abort, migration.Reclaim} {
				for bits := range 64 {
					s := New(workerapi.OpenRequest{Migration: "m", Role: role, Epoch: 5})
					s.Step, s.Verdict = step, v
					s.Ruled, s.Holds, s.Broken = bits&1 != 0, bits&2 != 0, bits&4 != 0
					s.Nothing, s.Returned, s.Gone = bits&8 != 0, bits&16 != 0, bits&32 != 0
					if role == migration.Source && step != workerapi.StepOpen {
						s.FrozenAt = s.FrozenAt.AddDate(1, 0, 0)
					}
					f(s)
				}
			}
		}
	}
}

// frees are the ops after which a tree may run, or is no more.
var frees = []Op{LetRun, Thaw, AnswerNo, EndTree, Kill, Discard, Return, Leave}

func TestAVerdictIsOnTheDiskBeforeItIsActedOn(t *testing.T) {
	every(func(s Session) {
		for _, v := range []migration.Verdict{migration.Commit, migration.Abort, migration.Reclaim} {
			p, err := s.Decide(v, Brings(v, s.Epoch))
			if err != nil || len(p) == 0 {
				continue
			}
			known := s.Verdict == v
			for _, op := range p {
				known = known || op == WriteVerdict
				if slices.Contains(frees, op) && !known {
					t.Errorf("%s of a %s that is %s: %v does %q first", v, s.Role, s.Step, p, op)
				}
			}
			if !slices.Contains(p, WriteRuled) && !slices.Contains(p, Deny) {
				t.Errorf("%s of a %s that is %s: the journal does not say that it was acted on: %v", v, s.Role, s.Step, p)
			}
		}
	})
}

func TestOnlyACommitLetsACopyRunAndOnlyAnAbortTheSource(t *testing.T) {
	every(func(s Session) {
		for _, v := range []migration.Verdict{migration.Commit, migration.Abort, migration.Reclaim} {
			p, err := s.Decide(v, Brings(v, s.Epoch))
			if err != nil {
				continue
			}
			if slices.Contains(p, LetRun) && (v != migration.Commit || s.Role != migration.Target) {
				t.Errorf("%s lets a %s run: %v", v, s.Role, p)
			}
			if slices.Contains(p, Thaw) && (v == migration.Commit || s.Role != migration.Source) {
				t.Errorf("%s thaws a %s: %v", v, s.Role, p)
			}
		}
	})
}

func TestAVerdictOfAnotherEpochIsRefused(t *testing.T) {
	every(func(s Session) {
		for _, v := range []migration.Verdict{migration.Commit, migration.Abort, migration.Reclaim} {
			for e := migration.Epoch(3); e < 9; e++ {
				if p, err := s.Decide(v, e); err == nil && e != Brings(v, s.Epoch) {
					t.Errorf("%s came with %s: %v", v, e, p)
				}
			}
		}
	})
}

func TestEveryOpHasAName(t *testing.T) {
	for _, op := range Ops() {
		if op.String() == "" {
			t.Errorf("op %d has no name", op)
		}
	}
}

func TestAnOrderToOpenThatIsOutOfDateIsRefused(t *testing.T) {
	req := workerapi.OpenRequest{Migration: "m", Role: migration.Target, Epoch: 5, Boot: "now"}
	for _, c := range []struct {
		what, boot string
		newest     migration.Epoch
		busy       migration.ID
		refused    bool
	}{
		{"at the newest epoch", "now", 5, "", false},
		{"of which nothing is known", "", 0, "", false},
		{"at an older epoch", "now", 6, "", true},
		{"in another boot", "then", 5, "", true},
		{"while another is open", "now", 5, "m0", true},
	} {
		if err := MayOpen(req, c.boot, c.newest, c.busy); (err != nil) != c.refused {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestWhatWasCommittedMayHaveRunThoughItWasReclaimed(t *testing.T) {
	var records []journal.Record
	write := func(op Op, data any) {
		r, err := op.Record("m", data)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	write(WriteOpen, workerapi.OpenRequest{Migration: "m", Role: migration.Target, Epoch: 5})
	write(WriteHeld, Held{Pid: 7})
	write(WriteVerdict, Ruling{migration.Commit, 6})
	write(WriteVerdict, Ruling{migration.Reclaim, 7})
	pasts, err := Replay(records)
	if err != nil {
		t.Fatal(err)
	}
	if up := TakeUp(pasts[0], Found{}); !up.Session.Ran || up.Session.Verdict != migration.Reclaim {
		t.Errorf("taken up as %+v", up.Session)
	}
}

func TestAVerdictThatWasActedOnIsNotActedOnAgain(t *testing.T) {
	every(func(s Session) {
		if p, err := s.Decide(s.Verdict, Brings(s.Verdict, s.Epoch)); err == nil && s.Ruled && len(p) > 0 {
			t.Errorf("%s of a %s that is %s again: %v", s.Verdict, s.Role, s.Step, p)
		}
	})
}

func TestATreeThatRanAndHasEndedByItselfIsSaidToHaveBeenReleased(t *testing.T) {
	s := New(workerapi.OpenRequest{Migration: "m", Role: migration.Target, Epoch: 5})
	s.Step, s.Verdict, s.Holds = workerapi.StepHeld, migration.Commit, true
	s.Begin(LetRun)
	s.Passed(0) // and then the journal could not be written to
	if p, err := s.Decide(migration.Commit, 6); err != nil || !slices.Equal(p, Program{AwaitWork, WriteRuled, TellReleased}) {
		t.Errorf("COMMIT comes again: %v, %v", p, err)
	}
}
