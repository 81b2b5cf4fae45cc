package plan

import (
	"strings"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/placement"
)

// A drain tries a workload again whose move was rolled back: what failed may have been the target.
const (
	maxAttempts = 3
	retryAfter  = 10 * time.Second // doubled each time
)

// Drain is the spec of the plan that a request for a drain asks for.
//
// Without a deadline the drain ends when it has tried all it can; with one it looks again at what could not be moved until
// then.
func Drain(req api.DrainRequest) api.PlanSpec {
	return api.PlanSpec{
		Name: DrainName(req.Host), Drain: req.Host, DrainOptions: req.Options, Deadline: req.Deadline,
		Parallel: req.MaxParallel, PerSource: req.MaxParallel, StartAt: req.At, Cron: req.Cron,
	}
}

// DrainName is the name of the plan that drains a host: there is one at a time.
func DrainName(host string) string {
	const longest = 63 - len("drain-")
	return "drain-" + strings.TrimRight(host[:min(len(host), longest)], "-")
}

// DrainReport says what a drain would do now, all at once: where each workload would go, and what cannot move and why.
func DrainReport(req api.DrainRequest, s State) api.DrainReport {
	spec := withDefaults(Drain(req))
	d := newDecision(api.Plan{Spec: spec, Started: s.Now}, s)
	report := api.DrainReport{Host: req.Host}
	for _, w := range d.onHost(req.Host) {
		item := d.drainItem(w)
		to, why := "", goneReason(w)
		if why == "" {
			var not []placement.Rejection
			if to, not = placement.Choose(s.Hosts, d.question(w)); to == "" {
				why = "no host can take it: " + placement.Explain(not)
			}
		}
		if why != "" {
			item.State, item.Reason = skipped, why
		} else {
			item.From, item.To = req.Host, to
			d.reserved[to] += placement.Need(w)
			d.owned[to]++
		}
		report.Items = append(report.Items, item)
	}
	return report
}

func (d *decision) drainItem(w api.Workload) api.PlanResult {
	return api.PlanResult{PlanItem: api.PlanItem{Workload: w.Name, To: Anywhere, Options: d.plan.Spec.DrainOptions}, State: waiting}
}

// find adds what has come to a draining host since, such as a workload whose move there was under way.
func (d *decision) find() {
	if !d.isDrain() || d.late() {
		return
	}
	has := map[string]bool{}
	for _, item := range d.plan.Items {
		has[item.Workload] = true
	}
	for _, w := range d.onHost(d.plan.Spec.Drain) {
		if !has[w.Name] && len(d.plan.Items) < maxItems {
			d.mark(len(d.plan.Items), d.drainItem(w))
		}
	}
}

// mayBegin says whether an item is to be looked at. A drain looks at all that is still there, also at what could not be moved
// before.
func (d *decision) mayBegin(item api.PlanResult) bool {
	if !d.isDrain() {
		return item.State == waiting
	}
	w, known := d.workloads[item.Workload]
	if !known || w.Owner != d.plan.Spec.Drain {
		return item.State == waiting // gone or elsewhere by another's hand: beginItem says so
	}
	return item.State != moving && (item.State != failed || d.mayRetry(item) && !d.s.Now.Before(d.retryAt(item)))
}

// mayRetry says whether a failed item of a drain has another attempt.
func (d *decision) mayRetry(item api.PlanResult) bool {
	w, known := d.workloads[item.Workload]
	return item.State == failed && known && w.Owner == d.plan.Spec.Drain && goneReason(w) == "" && !d.late() &&
		len(d.failures[item.Workload]) < maxAttempts
}

func (d *decision) retryAt(item api.PlanResult) time.Time {
	past := d.failures[item.Workload]
	if len(past) == 0 {
		return time.Time{}
	}
	return ended(d.latest[item.Workload]).Add(retryAfter << (len(past) - 1))
}

// triedAndFailed are the hosts where a move of this run was rolled back; another one is better if there is one.
func (d *decision) triedAndFailed(name string) map[string]string {
	hosts := map[string]string{}
	for _, m := range d.failures[name] {
		hosts[m.Target] = "a move to it was rolled back"
	}
	return hosts
}
