package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/errs"
)

var pageRemove = page{
	use:     "rm WORKLOAD",
	short:   "forget a workload that has exited",
	long:    `Forgets a workload that has exited, with its record and its output. With --force one that still runs is stopped first.`,
	example: `drover rm web`,
	exits: exits{
		errs.NotFound: "there is no such workload",
		errs.Conflict: "it still runs (--force), or is being migrated",
	},
}

func (a *app) cmdRemove() *cobra.Command {
	var force bool
	cmd := a.command(pageRemove, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		if err := c.Remove(ctx, name, force); err != nil {
			return err
		}
		return a.show(doneView{"removed", name})
	}))
	cmd.Flags().BoolVar(&force, "force", false, "stop it first")
	return cmd
}
