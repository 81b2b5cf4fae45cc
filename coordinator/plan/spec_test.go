package plan

import (
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
)

func spec(change func(*api.PlanSpec)) api.PlanSpec {
	s := api.PlanSpec{Name: "weekend", Migrations: []api.PlanItem{{Workload: "a", To: "beta"}, {Workload: "b"}}}
	if change != nil {
		change(&s)
	}
	return s
}

func TestValidateSaysAllThatIsWrong(t *testing.T) {
	for _, c := range []struct {
		why    string
		change func(*api.PlanSpec)
		want   []string // nothing: it is valid
	}{
		{"a plain plan", nil, nil},
		{"a drain", func(s *api.PlanSpec) { s.Migrations, s.Drain = nil, "alpha" }, nil},
		{"no name", func(s *api.PlanSpec) { s.Name = "" }, []string{"cannot name a plan"}},
		{"nothing to do", func(s *api.PlanSpec) { s.Migrations = nil }, []string{"no migrations"}},
		{"too much to do", func(s *api.PlanSpec) { s.Migrations = make([]api.PlanItem, 10_001) }, []string{"10001 migrations"}},
		{"a drain with moves", func(s *api.PlanSpec) { s.Drain = "alpha" }, []string{"finds its moves itself"}},
		{"a drain that stops at a failure", func(s *api.PlanSpec) { s.Migrations, s.Drain, s.OnFailure = nil, "alpha", "stop" }, []string{"a drain goes on"}},
		{"one workload twice", func(s *api.PlanSpec) { s.Migrations[1].Workload = "a" }, []string{"migrations[1]: a is moved twice"}},
		{"several at once", func(s *api.PlanSpec) { s.Parallel, s.OnFailure, s.Migrations[0].To = -1, "panic", "Beta!" },
			[]string{"parallel is -1", `on_failure is "panic"`, `not "Beta!"`}},
		{"a final state that makes no sense", func(s *api.PlanSpec) { s.Migrations[0].Options.SourceFinalState = "running" }, []string{`cannot leave a tree "running"`}},
		{"a cron with seconds", func(s *api.PlanSpec) { s.Cron = "0 30 2 * * 6" }, []string{"five fields"}},
		{"a cron by name", func(s *api.PlanSpec) { s.Cron = "@daily" }, []string{"five fields"}},
		{"a cron that never comes", func(s *api.PlanSpec) { s.Cron = "0 0 30 2 *" }, []string{"never comes"}},
	} {
		err := Validate(spec(c.change))
		if len(c.want) == 0 && err != nil {
			t.Errorf("%s: %v", c.why, err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) || errs.KindOf(err) != errs.Invalid {
				t.Errorf("%s: got %v, want it to say %q", c.why, err, want)
			}
		}
	}
}

func TestANewPlanIsScheduledWithItsDefaults(t *testing.T) {
	later := noon.Add(time.Hour)
	for _, c := range []struct {
		why    string
		change func(*api.PlanSpec)
		want   time.Time
	}{
		{"now", nil, noon},
		{"at its time", func(s *api.PlanSpec) { s.StartAt = later }, later},
		{"a time that has passed is now", func(s *api.PlanSpec) { s.StartAt = noon.Add(-time.Hour) }, noon},
		{"at the next tick", func(s *api.PlanSpec) { s.Cron = "15 * * * *" }, noon.Add(15 * time.Minute)},
		{"at the first tick after its time", func(s *api.PlanSpec) { s.Cron, s.StartAt = "15 * * * *", later }, later.Add(15 * time.Minute)},
	} {
		p, err := New(spec(c.change), noon)
		if err != nil || p.State != api.PlanScheduled || !p.NextRun.Equal(c.want) {
			t.Errorf("%s: got %s at %v, %v; want scheduled at %v", c.why, p.State, p.NextRun, err, c.want)
		}
		s := p.Spec
		if s.Parallel != 4 || s.PerSource != 2 || s.PerTarget != 2 || s.OnFailure != "continue" || p.Items[1].To != Anywhere || p.Items[0].State != waiting {
			t.Errorf("%s: defaults are missing in %+v", c.why, p)
		}
	}
}

func TestSteer(t *testing.T) {
	for _, c := range []struct {
		from    api.PlanState
		nextRun time.Time
		cron    string
		ask     api.PlanState
		want    api.PlanState // "" is refused
		at      time.Time
	}{
		{api.PlanRunning, time.Time{}, "", api.PlanPaused, api.PlanPaused, time.Time{}},
		{api.PlanMovingBack, time.Time{}, "", api.PlanPaused, api.PlanPaused, time.Time{}},
		{api.PlanScheduled, noon.Add(time.Hour), "", api.PlanPaused, api.PlanPaused, noon.Add(time.Hour)},
		{api.PlanPaused, time.Time{}, "", api.PlanRunning, api.PlanRunning, time.Time{}},
		{api.PlanPaused, noon.Add(time.Hour), "", api.PlanRunning, api.PlanScheduled, noon.Add(time.Hour)},
		{api.PlanPaused, noon.Add(-time.Hour), "", api.PlanRunning, api.PlanScheduled, noon.Add(-time.Hour)},
		{api.PlanPaused, noon.Add(-time.Hour), "15 * * * *", api.PlanRunning, api.PlanScheduled, noon.Add(15 * time.Minute)},
		{api.PlanRunning, time.Time{}, "", api.PlanRunning, api.PlanRunning, time.Time{}},
		{api.PlanRunning, time.Time{}, "", api.PlanCancelled, api.PlanCancelled, time.Time{}},
		{api.PlanPaused, time.Time{}, "", api.PlanCancelled, api.PlanCancelled, time.Time{}},
		{api.PlanCancelled, time.Time{}, "", api.PlanCancelled, api.PlanCancelled, time.Time{}},
		{api.PlanScheduled, noon, "", api.PlanRunning, "", time.Time{}},
		{api.PlanDone, time.Time{}, "", api.PlanRunning, "", time.Time{}},
		{api.PlanCancelled, time.Time{}, "", api.PlanPaused, "", time.Time{}},
		{api.PlanRunning, time.Time{}, "", api.PlanDone, "", time.Time{}},
	} {
		p := api.Plan{Spec: spec(nil), State: c.from, NextRun: c.nextRun}
		p.Spec.Cron = c.cron
		got, err := Steer(p, c.ask, noon)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s told to be %s: want a refusal, got %+v", c.from, c.ask, got)
			}
			continue
		}
		if err != nil || got.From != c.from || got.To != c.want || !got.NextRun.Equal(c.at) {
			t.Errorf("%s told to be %s: got %+v, %v; want %s at %v", c.from, c.ask, got, err, c.want, c.at)
		}
	}
}
