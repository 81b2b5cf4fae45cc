package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
)

var planExits = exits{
	errs.NotFound: "there is no such plan",
	errs.Conflict: "its state forbids it",
}

var (
	pagePlanShow = page{
		use: "show PLAN", short: "say how each move of a plan stands", exits: planExits,
		long:    `Says a plan's limits and state, and of each move where it goes, how it stands, by which migration, and why if it did not happen.`,
		example: `drover plan show drain-alpha`,
	}
	pagePlanPause = page{
		use: "pause PLAN", short: "begin no further move of a plan", exits: planExits,
		long:    `Begins no further move. Those under way go on to their end.`,
		example: `drover plan pause friday`,
	}
	pagePlanResume = page{
		use: "resume PLAN", short: "go on with a paused plan", exits: planExits,
		long:    `Goes on with a plan that was paused.`,
		example: `drover plan resume friday`,
	}
	pagePlanCancel = page{
		use: "cancel PLAN", short: "end a plan", exits: planExits,
		long:    `Ends a plan: moves that have not begun never do, those under way are aborted and rolled back as far as they are not decided. What has moved stays where it is. A scheduled plan does not begin again.`,
		example: `drover plan cancel friday`,
	}
	pagePlanWatch = page{
		use: "watch PLAN", short: "follow a plan to its end",
		exits: exits{errs.Failed: "the plan ended and something did not move, or watching was interrupted", errs.NotFound: "there is no such plan"},
		long:  `Shows a plan's moves until it has ended. ctrl-C stops watching; the plan goes on.`, example: `drover plan watch friday`,
	}
)

func (a *app) cmdPlan() *cobra.Command {
	family := &cobra.Command{Use: "plan", Short: "look at a plan, pause, resume, cancel or watch it"}
	family.AddCommand(
		a.command(pagePlanShow, a.askOne(func(ctx context.Context, c *cluster, name string) error {
			p, err := c.Plan(ctx, name)
			if err != nil {
				return err
			}
			return a.show(planView(p))
		})),
		a.steering(pagePlanPause, api.PlanPaused),
		a.steering(pagePlanResume, api.PlanRunning),
		a.steering(pagePlanCancel, api.PlanCancelled),
		a.command(pagePlanWatch, a.askOne(func(ctx context.Context, c *cluster, name string) error {
			return a.followPlan(ctx, c, name)
		})),
	)
	return family
}

func (a *app) steering(p page, to api.PlanState) *cobra.Command {
	return a.command(p, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		plan, err := c.SteerPlan(ctx, name, to)
		if err != nil {
			return err
		}
		return a.show(planView(plan))
	}))
}
