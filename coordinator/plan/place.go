package plan

import (
	"slices"

	"drover/coordinator/api"
	"drover/coordinator/placement"
)

// place starts an item on the host it names or on the best there is, or says why it cannot be yet or at all.
func (d *decision) place(i int, item api.PlanResult, w api.Workload) {
	to, why, passing := d.target(item, w)
	switch {
	case to != "":
		item.From, item.To = w.Owner, to
		d.start(i, item, w, to)
	case passing:
		d.setItem(i, item, waiting, why)
	default:
		d.setItem(i, item, d.cannot(), why)
	}
}

// target is the host for an item, or "" with the reason and whether it may pass by itself. An empty reason that passes is a
// limit, which says nothing of the item.
func (d *decision) target(item api.PlanResult, w api.Workload) (to, why string, passing bool) {
	if item.To != Anywhere && !d.isDrain() {
		return d.named(item.To, w)
	}
	hosts := slices.DeleteFunc(slices.Clone(d.s.Hosts), func(h api.Host) bool { return d.byTarget[h.Name] >= d.plan.Spec.PerTarget })
	q := d.question(w)
	if tried := d.triedAndFailed(w.Name); len(tried) > 0 {
		fresh := q
		fresh.Exclude = tried
		for host, why := range q.Exclude {
			fresh.Exclude[host] = why
		}
		if to, _ := placement.Choose(hosts, fresh); to != "" {
			return to, "", false
		}
	}
	if to, _ := placement.Choose(hosts, q); to != "" {
		return to, "", false
	}
	if to, not := placement.Choose(d.s.Hosts, q); to == "" {
		passing = slices.ContainsFunc(not, func(r placement.Rejection) bool { return r.Passing })
		return "", "no host can take it: " + placement.Explain(not), passing
	}
	return "", "", true // those that could have their fill of moves
}

// named says whether the one host that is asked for can take the workload now.
func (d *decision) named(host string, w api.Workload) (to, why string, passing bool) {
	h, known := d.hosts[host]
	if !known {
		return "", "there is no host " + host, false
	}
	if r, ok := placement.Fit(h, d.question(w)); !ok {
		return "", r.String(), r.Passing
	}
	if d.byTarget[host] >= d.plan.Spec.PerTarget {
		return "", "", true
	}
	return host, "", false
}

func (d *decision) placeBack(i int, item api.PlanResult, w api.Workload) {
	to, why, passing := d.named(item.From, w)
	switch {
	case to != "":
		d.start(i, item, w, to)
	case passing && why == "":
	case passing:
		d.setItem(i, item, moved, "waits to be moved back: "+why)
	default:
		d.setItem(i, item, failed, "could not be moved back: "+why)
	}
}

func (d *decision) question(w api.Workload) placement.Question {
	q := placement.Question{
		Workload: w.Name, Memory: placement.Need(w), Store: placement.NeedOfStore(w), Source: w.Owner, Version: d.hosts[w.Owner].Facts.Engine.Version,
		Reserved: d.reserved, Incoming: d.byTarget, Workloads: d.owned, Exclude: map[string]string{},
	}
	for move, why := range d.s.Refused {
		if move.Workload == w.Name {
			q.Exclude[move.Host] = why
		}
	}
	return q
}
