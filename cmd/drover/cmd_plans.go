package main

import (
	"context"

	"github.com/spf13/cobra"
)

var pagePlans = page{
	use:     "plans",
	short:   "list the plans, drains among them",
	long:    `Lists the plans in the record: their state, how many of their moves are done, and when one begins next.`,
	example: `drover plans`,
}

func (a *app) cmdPlans() *cobra.Command {
	return a.command(pagePlans, a.ask(func(ctx context.Context, c *cluster, _ []string) error {
		all, err := c.Plans(ctx)
		if err != nil {
			return err
		}
		return a.show(plansView(all))
	}))
}
