package plan

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/adhocore/gronx"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/workload"
)

const (
	// Anywhere as a target leaves the choice to placement.
	Anywhere = "anywhere"

	maxItems    = 10_000
	maxParallel = 1000

	defaultParallel = 4
	defaultPerHost  = 2

	onFailureContinue = "continue"
	onFailureStop     = "stop"
	onFailureMoveBack = "move-back"
)

// New is the plan that a spec asks for, as it goes into the record: checked, with defaults, scheduled for now or later.
func New(spec api.PlanSpec, now time.Time) (api.Plan, error) {
	if err := Validate(spec); err != nil {
		return api.Plan{}, err
	}
	spec = withDefaults(spec)
	first, err := firstRun(spec, now)
	if err != nil {
		return api.Plan{}, err
	}
	return api.Plan{Spec: spec, State: api.PlanScheduled, NextRun: first, Items: waitingItems(spec)}, nil
}

func withDefaults(s api.PlanSpec) api.PlanSpec {
	orDefault := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	orDefault(&s.Parallel, defaultParallel)
	orDefault(&s.PerSource, defaultPerHost)
	orDefault(&s.PerTarget, defaultPerHost)
	if s.OnFailure == "" {
		s.OnFailure = onFailureContinue
	}
	s.Migrations = slices.Clone(s.Migrations)
	for i := range s.Migrations {
		if s.Migrations[i].To == "" {
			s.Migrations[i].To = Anywhere
		}
	}
	return s
}

func waitingItems(spec api.PlanSpec) []api.PlanResult {
	items := make([]api.PlanResult, len(spec.Migrations))
	for i, m := range spec.Migrations {
		items[i] = api.PlanResult{PlanItem: m, State: waiting}
	}
	return items
}

// Validate says all that is wrong with a spec. Whether its workloads and hosts exist it cannot know.
func Validate(s api.PlanSpec) error {
	var wrong []error
	bad := func(format string, args ...any) { wrong = append(wrong, errs.New(errs.Invalid, format, args...)) }
	if err := workload.ValidName("plan", s.Name); err != nil {
		return err
	}
	switch n := len(s.Migrations); {
	case s.Drain != "" && n > 0:
		bad("it drains %s, so it finds its moves itself", s.Drain)
	case s.Drain == "" && n == 0:
		bad("it has no migrations")
	case n > maxItems:
		bad("it has %d migrations, more than %d", n, maxItems)
	}
	seen := map[string]bool{}
	for i, m := range s.Migrations {
		if err := workload.ValidName("workload", m.Workload); err != nil {
			bad("migrations[%d]: %w", i, err)
		} else if seen[m.Workload] {
			bad("migrations[%d]: %s is moved twice", i, m.Workload)
		}
		seen[m.Workload] = true
		if m.To != "" && m.To != Anywhere && workload.ValidName("host", m.To) != nil {
			bad("migrations[%d]: to must be a host or %q, not %q", i, Anywhere, m.To)
		}
		if err := m.Options.Check(); err != nil {
			bad("migrations[%d]: %w", i, err)
		}
	}
	for key, n := range map[string]int{"parallel": s.Parallel, "per_source": s.PerSource, "per_target": s.PerTarget} {
		if n < 0 || n > maxParallel {
			bad("%s is %d, not 1 to %d", key, n, maxParallel)
		}
	}
	switch s.OnFailure {
	case "", onFailureContinue:
	case onFailureStop, onFailureMoveBack:
		if s.Drain != "" {
			bad("on_failure: a drain goes on with what can be moved")
		}
	default:
		bad("on_failure is %q, not continue, stop or move-back", s.OnFailure)
	}
	if s.Deadline < 0 {
		bad("deadline is negative")
	}
	if s.Cron != "" {
		if _, err := nextTick(s.Cron, time.Unix(0, 0)); err != nil {
			wrong = append(wrong, err)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs.New(errs.Invalid, "plan %s: %w", s.Name, errors.Join(wrong...))
}

// firstRun is when a new plan starts: at its time, at the first tick after it, or now.
func firstRun(s api.PlanSpec, now time.Time) (time.Time, error) {
	at := now
	if s.StartAt.After(now) {
		at = s.StartAt
	}
	if s.Cron == "" {
		return at, nil
	}
	return nextTick(s.Cron, at)
}

// nextTick is the first tick of a cron expression after a time; five fields, UTC.
func nextTick(cron string, after time.Time) (time.Time, error) {
	if len(strings.Fields(cron)) != 5 || !gronx.IsValid(cron) {
		return time.Time{}, errs.New(errs.Invalid, "cron %q is not five fields of minute, hour, day, month and weekday", cron).
			WithNext(`write it as in "30 2 * * 6", which is 02:30 UTC on Saturdays`)
	}
	next, err := gronx.NextTickAfter(cron, after.UTC(), false)
	if err != nil {
		return time.Time{}, errs.New(errs.Invalid, "cron %q never comes: %w", cron, err)
	}
	return next, nil
}

// Active says whether Next may still have something to do for the plan. A cancelled one is active until its last move ended.
func Active(p api.Plan) bool {
	switch p.State {
	case api.PlanDone, api.PlanFailed, api.PlanCancelled:
		return slices.ContainsFunc(p.Items, func(i api.PlanResult) bool { return i.State == moving || i.State == waiting })
	}
	return true
}

// Steer is what a person's wish to pause (PlanPaused), resume (PlanRunning) or cancel (PlanCancelled) makes of a plan. What is
// so already is a SetState from a state to itself.
func Steer(p api.Plan, to api.PlanState, now time.Time) (SetState, error) {
	ended := p.State == api.PlanDone || p.State == api.PlanFailed || p.State == api.PlanCancelled
	switch {
	case to != api.PlanPaused && to != api.PlanRunning && to != api.PlanCancelled:
		return SetState{}, errs.New(errs.Invalid, "a plan cannot be told to be %s", to).WithNext("pause, resume or cancel it")
	case to == p.State:
		return SetState{From: to, To: to, NextRun: p.NextRun}, nil
	case ended:
		return SetState{}, errs.New(errs.Conflict, "plan %s is %s", p.Spec.Name, p.State).WithNext("apply it again to run it again")
	case to == api.PlanCancelled:
		return SetState{From: p.State, To: to}, nil
	case to == api.PlanPaused:
		return SetState{From: p.State, To: to, NextRun: p.NextRun}, nil
	case p.State != api.PlanPaused:
		return SetState{}, errs.New(errs.Conflict, "plan %s is %s, not paused", p.Spec.Name, p.State)
	case p.NextRun.IsZero(): // it was running or moving back; Next sees which
		return SetState{From: p.State, To: api.PlanRunning}, nil
	}
	next := p.NextRun
	if p.Spec.Cron != "" && next.Before(now) { // a tick that was slept through is not made up for
		tick, err := nextTick(p.Spec.Cron, now)
		if err != nil {
			return SetState{}, err
		}
		next = tick
	}
	return SetState{From: p.State, To: api.PlanScheduled, NextRun: next}, nil
}
