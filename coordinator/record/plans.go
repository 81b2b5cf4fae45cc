package record

import (
	"slices"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
)

// PlanPut adds a plan, or replaces one of that name that has ended.
type PlanPut struct {
	Plan api.Plan `json:"plan"`
}

func (PlanPut) kind() Type        { return TypePlanPut }
func (p PlanPut) subject() string { return p.Plan.Spec.Name }

func (p PlanPut) apply(s *State, c meta) error {
	name := p.Plan.Spec.Name
	if name == "" {
		return errs.New(errs.Invalid, "the plan has no name")
	}
	if old, ok := s.Plans[name]; ok && !PlanEnded(old.State) {
		return conflict("a plan called %s exists and is %s", name, old.State).WithNext("choose another name, or cancel it")
	}
	plan := p.Plan
	plan.Created, plan.By = c.time, c.by
	s.Plans[name] = plan
	return nil
}

// PlanItems sets how some items of a plan stand, by their index; one beyond the last is added. Each item changed must still
// stand as From says.
type PlanItems struct {
	Name  string     `json:"name"`
	Items []PlanItem `json:"items"`
}

// PlanItem is the change of one item.
type PlanItem struct {
	Index int            `json:"index"`
	From  string         `json:"from"` // its state before; "" for an item that is added
	Item  api.PlanResult `json:"item"`
}

func (PlanItems) kind() Type        { return TypePlanItems }
func (p PlanItems) subject() string { return p.Name }

func (p PlanItems) apply(s *State, _ meta) error {
	plan, ok := s.Plans[p.Name]
	if !ok {
		return unknown("plan", p.Name)
	}
	items := slices.Clone(plan.Items)
	for _, i := range p.Items {
		switch {
		case i.Index == len(items) && i.From == "" && len(items) < MaxPlanItems:
			items = append(items, i.Item)
		case i.Index < 0 || i.Index >= len(items):
			return errs.New(errs.Invalid, "plan %s has no item %d", p.Name, i.Index)
		case items[i.Index].State != i.From:
			return conflict("item %d of plan %s is %s, not %s", i.Index, p.Name, items[i.Index].State, i.From)
		default:
			items[i.Index] = i.Item
		}
	}
	plan.Items = items
	s.Plans[p.Name] = plan
	return nil
}

// MaxPlanItems bounds a plan.
const MaxPlanItems = 10_000

// PlanState carries a plan from one state to another.
type PlanState struct {
	Name    string           `json:"name"`
	From    api.PlanState    `json:"from"`
	To      api.PlanState    `json:"to"`
	NextRun time.Time        `json:"next_run,omitzero"`
	Items   []api.PlanResult `json:"items,omitempty"` // replaces the items: a plan that starts again
}

func (PlanState) kind() Type        { return TypePlanState }
func (p PlanState) subject() string { return p.Name }

func (p PlanState) apply(s *State, c meta) error {
	plan, ok := s.Plans[p.Name]
	switch {
	case !ok:
		return unknown("plan", p.Name)
	case plan.State != p.From:
		return conflict("plan %s is %s, not %s", p.Name, plan.State, p.From)
	case len(p.Items) > MaxPlanItems:
		return errs.New(errs.Invalid, "plan %s would have more than %d items", p.Name, MaxPlanItems)
	}
	if p.To == api.PlanRunning && (p.From == api.PlanScheduled || PlanEnded(p.From)) {
		plan.Started, plan.Ended = c.time, time.Time{}
	}
	if PlanEnded(p.To) && !PlanEnded(p.From) {
		plan.Ended = c.time
	}
	if p.Items != nil {
		plan.Items = p.Items
	}
	plan.State, plan.NextRun = p.To, p.NextRun
	s.Plans[p.Name] = plan
	return nil
}

// PlanEnded says whether a plan in that state moves nothing any more.
func PlanEnded(p api.PlanState) bool {
	return p == api.PlanDone || p == api.PlanFailed || p == api.PlanCancelled
}

// PlanRemove forgets a plan that has ended.
type PlanRemove struct {
	Name string `json:"name"`
}

func (PlanRemove) kind() Type        { return TypePlanRemove }
func (p PlanRemove) subject() string { return p.Name }

func (p PlanRemove) apply(s *State, _ meta) error {
	plan, ok := s.Plans[p.Name]
	switch {
	case !ok:
		return unknown("plan", p.Name)
	case !PlanEnded(plan.State):
		return conflict("plan %s is %s", p.Name, plan.State).WithNext("cancel it first")
	}
	delete(s.Plans, p.Name)
	return nil
}
