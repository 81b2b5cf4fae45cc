package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
)

var pageRemove = page{
	use:   "rm WORKLOAD",
	short: "forget a workload that has exited, or a copy of it",
	long: `Forgets a workload that has exited, with its record and its output. With --force one that still runs is stopped first, and fenced copies that migrations have left on other hosts go too.

--host removes only what is left of it on a host that does not own it: the fenced tree of a migration with --source-final-state stopped, with its files, or the remains of one that ended. The workload itself goes on where it is. --force is needed if the copy may be the last that there is.`,
	example: `drover rm web
drover rm web --host alpha`,
	exits: exits{
		errs.NotFound: "there is no such workload or host, or nothing of it there",
		errs.Conflict: "it still runs, or there is a fenced copy (--force); or it is being migrated",
	},
}

func (a *app) cmdRemove() *cobra.Command {
	var o api.RemoveOptions
	cmd := a.command(pageRemove, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		if err := c.Remove(ctx, name, o); err != nil {
			return err
		}
		if o.Host != "" {
			name += " from " + o.Host
		}
		return a.show(doneView{"removed", name})
	}))
	cmd.Flags().StringVar(&o.Host, "host", "", "host to remove it from, if it is not the owner's; else the whole workload goes")
	cmd.Flags().BoolVar(&o.Force, "force", false, "end it first, fenced copies too")
	return cmd
}
