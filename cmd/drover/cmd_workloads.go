package main

import (
	"context"

	"github.com/spf13/cobra"
)

var pageWorkloads = page{
	use:   "workloads",
	short: "list the workloads: where they run, and how",
	long: `Lists every workload of the cluster: its host, its state there, its address, how many processes and how much memory it has.

States: starting, running, stopped (every process stopped, see drover continue), migrating (running, and being copied), held (frozen by a migration), fenced (left stopped at the source of a migration: the tree lives elsewhere), exited, lost (its host does not answer, and it may live on there; or was rebooted, and it does not).`,
	example: `drover workloads
drover workloads --json | jq -r '.[] | select(.owner == "alpha") | .name'`,
}

func (a *app) cmdWorkloads() *cobra.Command {
	return a.command(pageWorkloads, a.ask(func(ctx context.Context, c *cluster, _ []string) error {
		all, err := c.Workloads(ctx)
		if err != nil {
			return err
		}
		return a.show(workloadsView(all))
	}))
}
