package coordinator

import (
	"context"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/plan"
	"drover/coordinator/record"
	"drover/internal/errs"
)

// Plans are the plans by name.
func (c *Coordinator) Plans(context.Context) ([]api.Plan, error) {
	if _, err := c.leading(); err != nil {
		return nil, err
	}
	return sorted(c.node.View().Plans), nil
}

// Plan is one of them.
func (c *Coordinator) Plan(_ context.Context, name string) (p api.Plan, err error) {
	if _, err := c.leading(); err != nil {
		return p, err
	}
	c.node.Read(func(s *record.State) {
		var ok bool
		if p, ok = s.Plans[name]; !ok {
			err = errs.New(errs.NotFound, "no plan is called %q", name).WithNext("drover plans")
		}
	})
	return p, err
}

// WatchPlan tells of every change of a plan until it has ended.
func (c *Coordinator) WatchPlan(ctx context.Context, name string, f func(api.Plan) error) error {
	return watch(ctx, c, func(*lead) (<-chan struct{}, <-chan struct{}) { return c.node.Changed(), nil },
		func() (api.Plan, bool, error) {
			p, err := c.Plan(ctx, name)
			return p, record.PlanEnded(p.State) && !plan.Active(p), err
		}, f)
}

// Apply puts a plan into the record; the plan loop begins it.
func (c *Coordinator) Apply(ctx context.Context, spec api.PlanSpec) (api.Plan, error) {
	if _, err := c.leading(); err != nil {
		return api.Plan{}, err
	}
	p, err := plan.New(spec, time.Now().UTC())
	if err != nil {
		return api.Plan{}, err
	}
	if err := c.knows(p); err != nil {
		return api.Plan{}, err
	}
	if _, err := c.node.Propose(ctx, by(ctx), record.PlanPut{Plan: p}); err != nil {
		return api.Plan{}, err
	}
	return c.Plan(ctx, p.Spec.Name)
}

// knows says whether the workloads and hosts that a plan names exist.
func (c *Coordinator) knows(p api.Plan) (err error) {
	c.node.Read(func(s *record.State) {
		for i, item := range p.Spec.Migrations {
			if _, ok := s.Workloads[item.Workload]; !ok {
				err = errs.New(errs.NotFound, "plan %s, move %d: no workload is called %q", p.Spec.Name, i+1, item.Workload).WithNext("drover workloads")
				return
			}
			if _, ok := s.Hosts[item.To]; !ok && item.To != plan.Anywhere {
				err = errs.New(errs.NotFound, "plan %s, move %d: no host is called %q", p.Spec.Name, i+1, item.To).WithNext("drover hosts")
				return
			}
		}
	})
	return err
}

// SteerPlan pauses, resumes or cancels a plan.
func (c *Coordinator) SteerPlan(ctx context.Context, name string, to api.PlanState) (api.Plan, error) {
	p, err := c.Plan(ctx, name)
	if err != nil {
		return p, err
	}
	set, err := plan.Steer(p, to, time.Now().UTC())
	if err != nil {
		return p, err
	}
	if set.From != set.To {
		change := record.PlanState{Name: name, From: set.From, To: set.To, NextRun: set.NextRun, Items: set.Items}
		if _, err := c.node.Propose(ctx, by(ctx), change); err != nil {
			return p, err
		}
	}
	return c.Plan(ctx, name)
}

// Drain is a plan that empties a host.
func (c *Coordinator) Drain(ctx context.Context, req api.DrainRequest) (api.DrainReport, error) {
	l, err := c.leading()
	if err != nil {
		return api.DrainReport{}, err
	}
	if _, err := c.hostRecord(req.Host); err != nil {
		return api.DrainReport{}, err
	}
	if err := req.Options.Check(); err != nil {
		return api.DrainReport{}, err
	}
	report := plan.DrainReport(req, c.planState(l, "", nil))
	if req.DryRun {
		return report, nil
	}
	p, err := c.Apply(ctx, plan.Drain(req))
	report.Plan = p.Spec.Name
	return report, err
}

// planState is what deciding about a plan needs to know.
func (c *Coordinator) planState(l *lead, name string, refused map[plan.Move]string) plan.State {
	view, now := c.node.View(), time.Now().UTC()
	s := plan.State{Now: now, Refused: refused}
	for _, h := range sorted(view.Hosts) {
		s.Hosts = append(s.Hosts, l.hostNow(h, now))
	}
	for _, w := range sorted(view.Workloads) {
		s.Workloads = append(s.Workloads, l.workloadNow(w, now))
	}
	for _, m := range sorted(view.Migrations) {
		if !m.Phase.Final() || m.Plan == name {
			s.Migrations = append(s.Migrations, l.migrationNow(m))
		}
	}
	return s
}
