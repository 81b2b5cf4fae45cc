package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/errs"
)

var pageContinue = page{
	use:   "continue WORKLOAD",
	short: "let a stopped tree go on",
	long: `Lets a tree that a checkpoint, a restore or a migration left stopped go on: its sockets are released from repair mode, its network is unlocked, and every process of it continues, but for those that were stopped before the dump. Continuing a running tree changes nothing.

A tree left stopped at the source of a migration is fenced, because its copy lives elsewhere: continuing it makes a second copy and needs --force. Its address then stays with the copy.`,
	example: `drover continue web`,
	exits: exits{
		errs.NotFound: "there is no such workload",
		errs.Conflict: "it has exited, or is being migrated",
		errs.Refused:  "it is fenced: its copy lives elsewhere (--force)",
	},
}

func (a *app) cmdContinue() *cobra.Command {
	var force bool
	cmd := a.command(pageContinue, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		w, err := c.Continue(ctx, name, force)
		if err != nil {
			return err
		}
		return a.show(workloadView(w))
	}))
	cmd.Flags().BoolVar(&force, "force", false, "continue a fenced tree although its copy lives elsewhere")
	return cmd
}
