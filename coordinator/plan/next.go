package plan

import (
	"fmt"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
)

// State is what deciding needs to know besides the plan.
type State struct {
	Now        time.Time
	Hosts      []api.Host
	Workloads  []api.Workload
	Migrations []api.Migration // all that are not final, and all of this plan
	// Refused are moves that the doctor refuses, with its word.
	Refused map[Move]string
	// Starting are moves whose admission is under way and not yet in the record, with the plan they are for: they count for
	// the limits, and are not started again.
	Starting map[Move]string
}

// Move is one workload to one host.
type Move struct{ Workload, Host string }

// Next is what the plan is to do now; nil if it waits for something. The same plan and state always give the same actions.
func Next(p api.Plan, s State) []Action {
	d := newDecision(p, s)
	switch p.State {
	case api.PlanScheduled:
		d.launch()
	case api.PlanRunning:
		d.settle()
		d.find()
		d.giveUp()
		d.begin()
		d.end()
	case api.PlanPaused:
		d.settle()
	case api.PlanMovingBack:
		d.settle()
		d.moveBack()
	case api.PlanCancelled:
		d.settle()
		d.cancel()
	}
	return d.actions
}

// launch starts a plan whose time has come. A drain cordons its host first, and its items are found now.
func (d *decision) launch() {
	if d.plan.NextRun.After(d.s.Now) {
		return
	}
	items := waitingItems(d.plan.Spec)
	if host := d.plan.Spec.Drain; host != "" {
		if h, ok := d.hosts[host]; ok && !h.Cordoned {
			d.do(Cordon{host})
		}
		items = nil
		for _, w := range d.onHost(host) {
			items = append(items, d.drainItem(w))
		}
	}
	d.do(SetState{From: d.plan.State, To: api.PlanRunning, Items: items})
}

// settle looks at what became of the items' migrations. Adopting those that no item knows of comes first: a leader may have
// died after it started one and before it said so.
func (d *decision) settle() {
	for i, item := range d.plan.Items {
		if m, ok := d.orphan(item); ok {
			item.Migration = m.ID
			if m.Target != item.From { // moving back, it keeps where it was from
				item.From, item.To = m.Source, m.Target
			}
			item.State, item.Reason = moving, ""
			d.mark(i, item)
		}
		if item.State != moving {
			continue
		}
		m, known := d.migrations[item.Migration]
		back := known && m.Target == item.From
		switch {
		case !known && d.workloads[item.Workload].Owner == item.To:
			item.State = moved // its record has been forgotten since
		case !known:
			item.State = waiting
		case m.Phase == migration.Done && back:
			item.State = movedBack
		case m.Phase == migration.Done:
			item.State, item.To = moved, m.Target
		case m.Phase == migration.RolledBack && back:
			item.State, item.Reason = failed, "could not be moved back: "+orUnknown(m.Reason)
		case m.Phase == migration.RolledBack:
			item.State, item.Reason = failed, orUnknown(m.Reason)
		default:
			continue
		}
		d.mark(i, item)
	}
}

// giveUp skips what waits when nothing new may begin: the deadline has passed, or something failed and the plan stops at that.
func (d *decision) giveUp() {
	var why string
	switch first := d.firstFailed(); {
	case d.late():
		why = "the deadline passed"
	case first != nil && d.plan.Spec.OnFailure != onFailureContinue:
		why = fmt.Sprintf("the plan stopped when %s failed", first.Workload)
	default:
		return
	}
	for i, item := range d.plan.Items {
		if item.State == waiting {
			item.State, item.Reason = skipped, why
			d.mark(i, item)
		}
	}
}

// begin starts what waits, in order, as far as limits and placement allow.
func (d *decision) begin() {
	if d.late() {
		return
	}
	for i, item := range d.plan.Items {
		if d.inAll >= d.plan.Spec.Parallel {
			return
		}
		if d.mayBegin(item) && !d.starting[item.Workload] {
			d.beginItem(i, item)
		}
	}
}

// beginItem starts one item, or says why it waits, cannot be moved or need not be.
func (d *decision) beginItem(i int, item api.PlanResult) {
	w, known := d.workloads[item.Workload]
	gone := goneReason(w)
	switch {
	case !known && d.isDrain():
		d.setItem(i, item, skipped, "it has been removed")
	case !known:
		d.setItem(i, item, failed, "there is no workload of that name")
	case d.isDrain() && w.Owner != d.plan.Spec.Drain:
		item.To = w.Owner
		d.setItem(i, item, moved, "it left by another's hand")
	case w.Owner == item.To && !d.isDrain():
		d.setItem(i, item, moved, "it was on "+item.To+" already")
	case gone != "":
		d.setItem(i, item, d.cannot(), gone)
	case w.Migration != "":
		d.setItem(i, item, waiting, fmt.Sprintf("migration %s moves it now", w.Migration))
	case d.bySource[w.Owner] >= d.plan.Spec.PerSource:
		return
	default:
		d.place(i, item, w)
	}
}

// end ends a run in which nothing is left to do or to wait for.
func (d *decision) end() {
	to := api.PlanDone
	for _, item := range d.plan.Items {
		switch {
		case item.State == moving, item.State == waiting, d.starting[item.Workload], d.isDrain() && d.mayRetry(item):
			return
		case (item.State == failed || item.State == skipped) && !d.isDrain():
			to = api.PlanFailed
		}
	}
	if d.isDrain() {
		if left := d.live(d.plan.Spec.Drain); left > 0 {
			if d.plan.Spec.Deadline > 0 && !d.late() {
				return // something may yet change: memory, a mended host, a person's hand
			}
			to = api.PlanFailed
		}
	}
	if d.firstFailed() != nil && d.plan.Spec.OnFailure == onFailureMoveBack && d.anyToMoveBack() {
		to = api.PlanMovingBack
	}
	d.finish(to)
}

// finish ends the run; a plan with a cron form waits for its next tick instead.
func (d *decision) finish(to api.PlanState) {
	set := SetState{From: d.plan.State, To: to}
	if to != api.PlanMovingBack && d.plan.Spec.Cron != "" {
		if next, err := nextTick(d.plan.Spec.Cron, d.s.Now); err == nil {
			set.To, set.NextRun = api.PlanScheduled, next
		}
	}
	d.do(set)
}

// moveBack returns what moved, the last one first. The deadline does not count: it is the undoing.
func (d *decision) moveBack() {
	left := false
	for i := len(d.plan.Items) - 1; i >= 0; i-- {
		item := d.plan.Items[i]
		switch {
		case item.State == waiting: // resumed after a pause that came before it was skipped
			d.setItem(i, item, skipped, "the plan is being undone")
		case item.State == moved && item.From != "" && !d.starting[item.Workload]:
			d.returnItem(i, item)
		}
		item = d.plan.Items[i]
		left = left || item.State == moving || item.State == moved && item.From != ""
	}
	if !left {
		d.finish(api.PlanFailed)
	}
}

func (d *decision) returnItem(i int, item api.PlanResult) {
	w, known := d.workloads[item.Workload]
	switch {
	case !known:
		d.setItem(i, item, failed, "could not be moved back: it no longer exists")
	case w.Owner == item.From:
		d.setItem(i, item, movedBack, "")
	case w.Owner != item.To:
		d.setItem(i, item, failed, "could not be moved back: it is on "+w.Owner+" now")
	case goneReason(w) != "":
		d.setItem(i, item, failed, "could not be moved back: "+goneReason(w))
	case w.Migration != "":
		d.setItem(i, item, moved, fmt.Sprintf("waits to be moved back: migration %s moves it now", w.Migration))
	case d.inAll < d.plan.Spec.Parallel && d.bySource[w.Owner] < d.plan.Spec.PerSource:
		d.placeBack(i, item, w)
	}
}

// cancel skips what waits and asks for the undecided moves to be aborted; decided ones go on to their end.
func (d *decision) cancel() {
	for i, item := range d.plan.Items {
		switch m, known := d.migrations[item.Migration]; {
		case item.State == waiting:
			d.setItem(i, item, skipped, "the plan was cancelled")
		case item.State == moving && known && !m.Phase.Decided():
			d.do(Abort{m.ID, "plan " + d.plan.Spec.Name + " was cancelled"})
		}
	}
}
