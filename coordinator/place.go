package coordinator

import (
	"time"

	"drover/coordinator/api"
	"drover/coordinator/placement"
	"drover/coordinator/record"
	"drover/internal/errs"
	workerapi "drover/worker/api"
)

// place is the host for a workload that is to be started.
func (c *Coordinator) place(l *lead, name string) (string, error) {
	host, not := placement.Choose(c.hostsNow(l), c.question(name))
	if host == "" {
		return "", errs.New(errs.Refused, "no host can take %s: %s", name, placement.Explain(not)).WithNext("name one with --host")
	}
	return host, nil
}

// chooseTarget is the best host for a workload that is to move.
func (c *Coordinator) chooseTarget(l *lead, w record.Workload, inv workerapi.Inventory, exclude map[string]string) (string, error) {
	q := c.question(w.Name)
	q.Source, q.Version, q.Exclude = w.Owner, inv.Engine.Version, exclude
	now := l.workloadNow(w, time.Now())
	q.Memory, q.Store = placement.Need(now), placement.NeedOfStore(now)
	host, not := placement.Choose(c.hostsNow(l), q)
	if host == "" {
		return "", errs.New(errs.Refused, "%s can move nowhere: %s", w.Name, placement.Explain(not)).
			WithNext("mend one of them, or let another host join; drover doctor %s --to HOST says all that the doctor finds there", w.Name)
	}
	return host, nil
}

// question is what placement should know of the cluster besides its hosts.
func (c *Coordinator) question(name string) placement.Question {
	q := placement.Question{Workload: name, Incoming: map[string]int{}, Workloads: map[string]int{}, Exclude: map[string]string{}}
	c.node.Read(func(s *record.State) {
		for _, w := range s.Workloads {
			q.Workloads[w.Owner]++
			if m, moving := s.Migrations[w.Migration]; moving && !m.Phase.Decided() {
				q.Incoming[m.Target]++
			}
		}
	})
	return q
}

func (c *Coordinator) hostsNow(l *lead) (out []api.Host) {
	now := time.Now()
	for _, h := range sorted(c.node.View().Hosts) {
		out = append(out, l.hostNow(h, now))
	}
	return out
}
