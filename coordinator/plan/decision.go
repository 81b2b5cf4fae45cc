package plan

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/placement"
	"drover/internal/migration"
	"drover/internal/workload"
)

// decision is the work of one Next: the plan as it will be once the actions so far are done, and what is counted.
type decision struct {
	plan    api.Plan
	s       State
	actions []Action

	hosts      map[string]api.Host
	workloads  map[string]api.Workload
	migrations map[migration.ID]api.Migration
	latest     map[string]api.Migration   // of this run of the plan, by workload
	failures   map[string][]api.Migration // of this run of the plan, by workload: those rolled back

	starting map[string]bool // workloads whose move is being admitted

	inAll    int            // moves of this plan under way
	bySource map[string]int // moves of anyone under way: a link and a disk do not care whose they are
	byTarget map[string]int
	reserved map[string]int64
	owned    map[string]int
}

func newDecision(p api.Plan, s State) *decision {
	p.Items = slices.Clone(p.Items)
	d := &decision{
		plan: p, s: s,
		hosts: map[string]api.Host{}, workloads: map[string]api.Workload{},
		migrations: map[migration.ID]api.Migration{}, latest: map[string]api.Migration{}, failures: map[string][]api.Migration{},
		starting: map[string]bool{},
		bySource: map[string]int{}, byTarget: map[string]int{}, reserved: map[string]int64{}, owned: map[string]int{},
	}
	for _, h := range s.Hosts {
		d.hosts[h.Name] = h
	}
	for _, w := range s.Workloads {
		d.workloads[w.Name] = w
		d.owned[w.Owner]++
	}
	for _, m := range s.Migrations {
		d.migrations[m.ID] = m
		if m.Plan == p.Spec.Name && !began(m).Before(p.Started) {
			if !began(m).Before(began(d.latest[m.Workload])) {
				d.latest[m.Workload] = m
			}
			if m.Phase == migration.RolledBack {
				d.failures[m.Workload] = append(d.failures[m.Workload], m)
			}
		}
		if !m.Phase.Final() {
			d.count(m.Source, m.Target, m.Plan == p.Spec.Name)
		}
		if m.Phase == migration.Admitted { // later the target's own figures know of it
			d.reserved[m.Target] += placement.Need(d.workloads[m.Workload])
		}
	}
	for move, by := range s.Starting {
		w := d.workloads[move.Workload]
		d.starting[w.Name] = true
		if w.Migration == "" { // else it has been admitted, and counted above
			d.count(w.Owner, move.Host, by == p.Spec.Name)
			d.reserved[move.Host] += placement.Need(w)
		}
	}
	return d
}

func (d *decision) count(source, target string, ours bool) {
	d.bySource[source]++
	d.byTarget[target]++
	if ours {
		d.inAll++
	}
}

func began(m api.Migration) time.Time {
	if len(m.Transitions) == 0 {
		return time.Time{}
	}
	return m.Transitions[0].Time
}

func ended(m api.Migration) time.Time {
	if len(m.Transitions) == 0 {
		return time.Time{}
	}
	return m.Transitions[len(m.Transitions)-1].Time
}

func (d *decision) do(a Action) { d.actions = append(d.actions, a) }

// mark records an item that changed.
func (d *decision) mark(i int, item api.PlanResult) {
	was := ""
	if i < len(d.plan.Items) {
		was = d.plan.Items[i].State
		d.plan.Items[i] = item
	} else {
		d.plan.Items = append(d.plan.Items, item)
	}
	d.do(Mark{Index: i, Was: was, Item: item})
}

// setItem marks an item with a state and a reason unless it stands so already.
func (d *decision) setItem(i int, item api.PlanResult, state, reason string) {
	if item.State != state || item.Reason != reason {
		item.State, item.Reason = state, reason
		d.mark(i, item)
	}
}

// start begins a move and counts it.
func (d *decision) start(i int, item api.PlanResult, w api.Workload, to string) {
	was := item.State
	item.State, item.Reason = moving, ""
	d.plan.Items[i] = item
	d.count(w.Owner, to, true)
	d.reserved[to] += placement.Need(w)
	d.do(Start{Index: i, Was: was, To: to, Item: item})
}

// orphan is a migration of this run that moves the item and that the item does not know of.
func (d *decision) orphan(item api.PlanResult) (api.Migration, bool) {
	m, ok := d.latest[item.Workload]
	known, has := d.migrations[item.Migration]
	return m, ok && m.ID != item.Migration && (!has || began(m).After(began(known)))
}

func (d *decision) isDrain() bool { return d.plan.Spec.Drain != "" }

func (d *decision) late() bool {
	return d.plan.Spec.Deadline > 0 && !d.s.Now.Before(d.plan.Started.Add(d.plan.Spec.Deadline))
}

func (d *decision) firstFailed() *api.PlanResult {
	for _, item := range d.plan.Items {
		if item.State == failed {
			return &item
		}
	}
	return nil
}

func (d *decision) anyToMoveBack() bool {
	return slices.ContainsFunc(d.plan.Items, func(i api.PlanResult) bool { return i.State == moved && i.From != "" })
}

// cannot is the state of an item that cannot be moved: a drain looks at it again, another plan has failed at it.
func (d *decision) cannot() string {
	if d.isDrain() {
		return skipped
	}
	return failed
}

// goneReason says why there is no tree to move, "" if there is one.
func goneReason(w api.Workload) string {
	switch w.Status.State {
	case workload.Exited:
		return "it has exited: there is nothing to move"
	case workload.Lost:
		return "its host does not answer, or was rebooted: there is nothing to move"
	case workload.Fenced:
		return "it is fenced: its tree lives elsewhere"
	}
	return ""
}

// onHost lists the workloads that a host owns, the largest first: what is hard to place is placed while there is room.
func (d *decision) onHost(host string) []api.Workload {
	var on []api.Workload
	for _, w := range d.s.Workloads {
		if w.Owner == host {
			on = append(on, w)
		}
	}
	slices.SortFunc(on, func(a, b api.Workload) int {
		return cmp.Or(cmp.Compare(b.Status.RSS, a.Status.RSS), strings.Compare(a.Name, b.Name))
	})
	return on
}

// live counts a host's workloads that have a tree to move.
func (d *decision) live(host string) (n int) {
	for _, w := range d.onHost(host) {
		if goneReason(w) == "" {
			n++
		}
	}
	return n
}

func orUnknown(reason string) string {
	if reason == "" {
		return "the migration was rolled back"
	}
	return reason
}
