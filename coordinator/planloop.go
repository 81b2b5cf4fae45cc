package coordinator

import (
	"context"
	"sync"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/plan"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
)

const (
	planTick     = time.Second // clocks, silent hosts and freed memory do not change the record
	forgetAfter  = time.Minute // a doctor's refusal is asked for again after that
	startLimit   = time.Minute // for the doctor's look before one move
	planProposer = "plan:"     // before a plan's name, in the audit trail
)

// planner turns what plans call for into changes of the record and admissions, while this coordinator leads.
type planner struct {
	c    *Coordinator
	lead *lead

	mu       sync.Mutex
	refused  map[string]map[plan.Move]refusal // by plan
	starting map[string]bool                  // workloads whose move is being admitted
	settled  chan struct{}                    // closed and replaced when an admission has ended
}

// refusal is the doctor's word against one move.
type refusal struct {
	why string
	at  time.Time
}

// runPlans begins the migrations that the plans call for, until ctx is done.
func (c *Coordinator) runPlans(ctx context.Context, l *lead) {
	p := &planner{c: c, lead: l, refused: map[string]map[plan.Move]refusal{}, starting: map[string]bool{}, settled: make(chan struct{})}
	tick := time.NewTicker(planTick)
	defer tick.Stop()
	var admissions sync.WaitGroup
	defer admissions.Wait()
	for {
		changed, settled := c.node.Changed(), p.ended()
		for _, pl := range sorted(c.node.View().Plans) {
			if plan.Active(pl) && ctx.Err() == nil {
				p.advance(ctx, pl, &admissions)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-settled:
		case <-tick.C:
		}
	}
}

func (p *planner) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settled
}

// advance does what one plan calls for now. A change that the record refuses ends the turn: the next one sees why. Admissions
// take the doctor's time and go on side by side.
func (p *planner) advance(ctx context.Context, pl api.Plan, admissions *sync.WaitGroup) {
	name := pl.Spec.Name
	for _, a := range plan.Next(pl, p.c.planState(p.lead, name, p.known(name))) {
		if start, ok := a.(plan.Start); ok {
			if p.begin(start.Item.Workload) {
				admissions.Go(func() { p.start(ctx, pl, start) })
			}
			continue
		}
		if err := p.do(ctx, pl, a); err != nil {
			if ctx.Err() == nil {
				p.c.log.Info("a plan's action was not done", "plan", name, "error", err)
			}
			return
		}
	}
}

// begin takes a workload for one admission; false if one is under way.
func (p *planner) begin(workload string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.starting[workload] {
		return false
	}
	p.starting[workload] = true
	return true
}

// settle ends an admission; why is the doctor's word against it, if there was one.
func (p *planner) settle(name string, m plan.Move, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.starting, m.Workload)
	if why != nil {
		if p.refused[name] == nil {
			p.refused[name] = map[plan.Move]refusal{}
		}
		p.refused[name][m] = refusal{why.Error(), time.Now()}
	}
	close(p.settled)
	p.settled = make(chan struct{})
}

func (p *planner) do(ctx context.Context, pl api.Plan, a plan.Action) error {
	name := pl.Spec.Name
	switch a := a.(type) {
	case plan.Mark:
		return p.propose(ctx, name, record.PlanItems{Name: name, Items: []record.PlanItem{{Index: a.Index, From: a.Was, Item: a.Item}}})
	case plan.SetState:
		if record.PlanEnded(a.To) {
			p.forget(name)
		}
		return p.propose(ctx, name, record.PlanState{Name: name, From: a.From, To: a.To, NextRun: a.NextRun, Items: a.Items})
	case plan.Cordon:
		return p.propose(ctx, name, record.HostCordon{Name: a.Host, On: true})
	case plan.Abort:
		_, err := p.c.AbortMigration(ctx, a.Migration, a.Reason)
		if errs.KindOf(err) == errs.Conflict {
			return nil
		}
		return err
	}
	return errs.New(errs.Failed, "plan %s calls for an unknown action %T", name, a)
}

// start admits one move and marks its item. What the doctor refuses is remembered, so that the plan can try elsewhere or give
// the item up; after any other error it calls for the same move again.
func (p *planner) start(ctx context.Context, pl api.Plan, a plan.Start) {
	name, move := pl.Spec.Name, plan.Move{Workload: a.Item.Workload, Host: a.To}
	asked, cancel := context.WithTimeout(link.WithPeer(ctx, caller(pl)), startLimit)
	defer cancel()
	m, err := p.c.Migrate(asked, api.MigrateRequest{Workload: a.Item.Workload, To: a.To, Options: a.Item.Options, Plan: name})
	if err != nil {
		var against error
		switch errs.KindOf(err) {
		case errs.Refused, errs.Invalid, errs.NotFound:
			against = err
		default:
			p.c.log.Info("a plan's move could not begin yet", "plan", name, "workload", move.Workload, "host", move.Host, "error", err)
		}
		p.settle(name, move, against)
		return
	}
	a.Item.Migration = m.ID
	if err := p.propose(ctx, name, record.PlanItems{Name: name, Items: []record.PlanItem{{Index: a.Index, From: a.Was, Item: a.Item}}}); err != nil {
		p.c.log.Info("a plan's move was not marked: the plan will find it", "plan", name, "migration", m.ID, "error", err)
	}
	p.settle(name, move, nil)
}

// caller is who asked for the plan.
func caller(pl api.Plan) pki.Principal {
	p, _ := pki.ParsePrincipal(pl.By)
	return p
}

// known are the refusals of a plan that are not yet forgotten.
func (p *planner) known(name string) map[plan.Move]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[plan.Move]string{}
	for m, r := range p.refused[name] {
		if time.Since(r.at) > forgetAfter {
			delete(p.refused[name], m)
			continue
		}
		out[m] = r.why
	}
	return out
}

func (p *planner) forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.refused, name)
}

func (p *planner) propose(ctx context.Context, name string, change record.Change) error {
	_, err := p.c.node.Propose(ctx, planProposer+name, change)
	return err
}
