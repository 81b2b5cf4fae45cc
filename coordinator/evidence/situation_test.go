package evidence

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// waiting is a migration in phase p, with nothing else known of it.
func waiting(p migration.Phase, change ...func(*record.Migration)) record.Migration {
	m := moved()
	m.Phase, m.ProbationOver, m.Passed = p, false, nil
	for _, f := range change {
		f(&m)
	}
	return m
}

func over(m *record.Migration) { m.ProbationOver = true }

func says(a api.Answer) Word { return Word{Answer: a} }

func silent(role migration.Role) Word {
	host := map[migration.Role]string{migration.Source: "alpha", migration.Target: "beta"}[role]
	return Word{Answer: api.Answer{Host: host, Role: role, Silent: clock(1)}}
}

func absent(role migration.Role) Word {
	w := silent(role)
	w.Silent, w.Heard, w.Absent = time.Time{}, clock(9), true
	return w
}

func with(w Word, change func(*Word)) Word { change(&w); return w }

func TestWhatMayBeDecidedFollowsFromThePhaseAndTheHostsWords(t *testing.T) {
	staged, released := says(source(9, workerapi.StepStaged)), says(target(9, workerapi.StepReleased))
	dead, alive, noSource := api.TargetIsDead, api.TargetIsAlive, api.SourceIsDead
	for name, c := range map[string]struct {
		m              record.Migration
		source, target Word
		may            []api.Decision
		because        string
	}{
		"undecided":                               {waiting(migration.Held), staged, silent(migration.Target), nil, "drover abort"},
		"ended":                                   {waiting(migration.Done), staged, released, nil, "it has ended"},
		"after COMMIT a target that is silent":    {waiting(migration.Committed), staged, silent(migration.Target), []api.Decision{dead, alive}, "beta does not answer"},
		"after the release a target that is":      {waiting(migration.Released), staged, silent(migration.Target), []api.Decision{dead, alive}, "may run now"},
		"a target that answers":                   {waiting(migration.Released), staged, released, nil, "beta answers"},
		"a target whose session has failed":       {waiting(migration.Committed), staged, with(released, func(w *Word) { w.Error = "no disk" }), nil, "mend its worker"},
		"a target that has just gone silent":      {waiting(migration.Committed), staged, with(silent(migration.Target), func(w *Word) { w.Early = true }), nil, "too short"},
		"a target that has booted":                {waiting(migration.Committed), staged, with(silent(migration.Target), func(w *Word) { w.Boot = "boot-c" }), nil, "has booted since admission"},
		"a target that was removed":               {waiting(migration.Committed), staged, with(silent(migration.Target), func(w *Word) { w.Removed = true }), nil, "no longer in the cluster"},
		"a target that has lost its state":        {waiting(migration.Released), staged, absent(migration.Target), []api.Decision{dead, alive}, "a tree may run there"},
		"one that has, and where the tree lives":  {waiting(migration.Released), staged, with(absent(migration.Target), func(w *Word) { w.Lives = true }), []api.Decision{alive}, "lives there"},
		"after probation a silent source":         {waiting(migration.Released, over), silent(migration.Source), released, []api.Decision{noSource}, "without a say"},
		"after probation a silent target":         {waiting(migration.Released, over), says(source(9, workerapi.StepDone)), silent(migration.Target), []api.Decision{dead}, "cannot be brought back"},
		"after probation both silent":             {waiting(migration.Released, over), silent(migration.Source), silent(migration.Target), []api.Decision{noSource, dead}, "without a say"},
		"after an abort a silent source":          {waiting(migration.Aborted), silent(migration.Source), says(target(9, workerapi.StepUndone)), []api.Decision{noSource}, "its own"},
		"after an abort a silent target":          {waiting(migration.Aborted), says(source(9, workerapi.StepUndone)), silent(migration.Target), []api.Decision{dead}, "not yet removed"},
		"after a reclaim both silent":             {waiting(migration.Reclaimed), silent(migration.Source), silent(migration.Target), []api.Decision{noSource, dead}, "its own"},
		"a host that has been decided on already": {waiting(migration.Reclaimed, fence), silent(migration.Source), silent(migration.Target), []api.Decision{noSource}, "its own"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Assess(c.m, record.Workload{Name: "w", Owner: "beta", Epoch: 5}, c.source, c.target)
			var may []api.Decision
			for _, choice := range s.Choices {
				may = append(may, choice.Decision)
				if choice.Host == "" || choice.First == "" || choice.Then == "" || Refusal(s, choice.Decision) != "" {
					t.Errorf("a choice is not whole: %+v", choice)
				}
			}
			if !slices.Equal(may, c.may) || !has(s.Because, c.because) {
				t.Errorf("may decide %v because %q; want %v because %q", may, s.Because, c.may, c.because)
			}
			for _, d := range api.Decisions {
				if !slices.Contains(may, d) && Refusal(s, d) == "" {
					t.Errorf("%s is not among the choices, and is not refused", d)
				}
			}
			if err := format(s); err != nil {
				t.Error(err)
			}
		})
	}
}

func fence(m *record.Migration) {
	m.Resolutions = []api.Resolution{{Decision: api.TargetIsDead, Host: "beta"}}
}

// format finds texts whose arguments do not fit.
func format(s api.Situation) error {
	texts := slices.Clone(s.Because)
	for _, c := range s.Choices {
		texts = append(texts, c.First, c.Then)
	}
	for _, text := range texts {
		if strings.Contains(text, "%!") {
			return errors.New(text)
		}
	}
	return nil
}

func TestAPersonsWordIsEvidenceAndStaysUnknown(t *testing.T) {
	m := moved()
	m.Resolutions = []api.Resolution{{Decision: api.SourceIsDead, Host: "alpha", By: "operator:ada:admin", Reason: "burnt", Index: 108}}
	m.Transitions[7].Answers = m.Transitions[7].Answers[1:]
	e := Of(m)
	if !has(e.Holds, "operator:ada:admin vouched that the source is dead, alpha, at index 108") || !has(e.Unknown, "whether that is true") || len(e.Unknown) != 1 || len(e.Wrong) > 0 {
		t.Errorf("shown %q, not known %q, wrong %q", e.Holds, e.Unknown, e.Wrong)
	}
}
