package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
)

var pageApply = page{
	use:   "apply PLAN.yaml",
	short: "put a plan of migrations into the record and watch it",
	long: `Reads a plan: a list of migrations with limits, an order, and what a failure does. The plan is in the cluster's record from then on: it survives a change of leader, and drover plan pauses, resumes and cancels it. "-" reads standard input.

The file is YAML. Unknown keys, values of the wrong type and impossible ones are refused, with their line, before anything is asked. Durations are written as 300ms or 5m, sizes as 100MB.

    name: friday              # how the plan is called
    migrations:               # done in this order, as the limits allow
      - workload: web
        to: beta              # a host, or anywhere
        options: {downtime: 200ms, bandwidth: 100MB}
      - {workload: cache, to: anywhere}
    parallel: 4               # at once in all
    per_source: 2             # and from one host
    per_target: 2             # and to one host
    on_failure: continue      # or stop, or move-back: what has been done
    start_at: 2026-01-02T03:04:05Z
    cron: "0 3 * * 6"         # or: begins again at each tick, UTC
    deadline: 30m             # nothing new begins after it

A move's options: policy, downtime, strict, patience, throttle, max_rounds, tracker, compression, bandwidth, probation, deadline, freeze_deadline, final_state, source_final_state.

ctrl-C stops watching; the plan goes on.`,
	example: `drover apply friday.yaml
drover apply - --detach < friday.yaml`,
	exits: exits{
		errs.Failed:   "the plan ended and something did not move, or watching was interrupted",
		errs.NotFound: "there is no such file, workload or host",
		errs.Conflict: "there is another plan of that name under way",
	},
}

func (a *app) cmdApply() *cobra.Command {
	var detach bool
	var spec api.PlanSpec
	cmd := a.command(pageApply, nil)
	cmd.PreRunE = func(_ *cobra.Command, args []string) (err error) {
		spec, err = a.readPlan(args[0])
		return err
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *cluster, _ []string) error {
		p, err := c.Apply(ctx, spec)
		if err != nil {
			return err
		}
		if detach || p.State == api.PlanScheduled && !p.NextRun.IsZero() {
			return a.show(planView(p))
		}
		return a.followPlan(ctx, c, p.Spec.Name)
	})
	cmd.Flags().BoolVar(&detach, "detach", false, "return once it is in the record; drover watch shows the rest")
	return cmd
}

// followPlan shows a plan until its end.
func (a *app) followPlan(ctx context.Context, c *cluster, name string) error {
	events, ended := watchPlan(ctx, c, name)
	var last api.Plan
	for {
		select {
		case e := <-events:
			if e.note != "" {
				a.say("%s", e.note)
				continue
			}
			last = e.value
			if err := a.update(planProgress(last)); err != nil {
				return err
			}
		case err := <-ended:
			if ctx.Err() != nil {
				return errs.New(errs.Failed, "stopped watching: plan %s goes on in the cluster", name).WithNext("drover watch %s", name)
			}
			if err != nil {
				return err
			}
			if err := a.conclude(planView(last)); err != nil {
				return err
			}
			return planOutcome(last)
		}
	}
}

// planOutcome is nil for a plan that has moved everything, or was cancelled as somebody asked.
func planOutcome(p api.Plan) error {
	left := 0
	for _, item := range p.Items {
		if item.State != "moved" {
			left++
		}
	}
	if p.State != api.PlanFailed {
		return nil
	}
	return errs.New(errs.Failed, "plan %s has ended and %s of %d did not happen", p.Spec.Name, plural(left, "move"), len(p.Items)).
		WithNext("drover plan show %s says why", p.Spec.Name)
}

func planEnded(p api.Plan) bool {
	switch p.State {
	case api.PlanDone, api.PlanFailed, api.PlanCancelled:
		for _, item := range p.Items {
			if item.State == "moving" {
				return false
			}
		}
		return true
	}
	return false
}
