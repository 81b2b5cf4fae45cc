package main

import (
	"context"

	"github.com/spf13/cobra"
)

var pageStatus = page{
	use: "status", short: "say who coordinates the cluster",
	long: `Says which coordinator leads and whether the others answer. While no majority answers nothing new is decided; what runs goes on, and trees that are held stay held.

Coordinators and workers renew their certificates by themselves when a third of their life is left. From 30 days before the end of one on, its member is marked here or in drover hosts: it could not renew it.`,
	example: `drover status`,
}

func (a *app) cmdStatus() *cobra.Command {
	return a.command(pageStatus, a.ask(func(ctx context.Context, c *cluster, _ []string) error {
		status, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		return a.show(clusterView(status))
	}))
}
