package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
)

var pageContinue = page{
	use:   "continue WORKLOAD",
	short: "let a stopped tree go on",
	long: `Lets a tree that a checkpoint, a restore or a migration left stopped go on: its sockets are released from repair mode, its network is unlocked, and every process of it continues, but for those that were stopped before the dump. Continuing a running tree changes nothing.

A tree left stopped at the source of a migration is fenced: the workload lives on the target, and there must never be two. --host with --force goes back to it nevertheless: the workload is given to that host, as it was when it left there, and what has happened to it since is lost. This is refused unless the tree on the present owner has ended (drover stop). An owner that does not answer must be switched off or cut off for good first; --off, with its name, says that you have seen to it. If that is not true there will be two.`,
	example: `drover continue web
drover stop web && drover continue web --host alpha --force
drover continue web --host alpha --force --off beta`,
	exits: exits{
		errs.NotFound: "there is no such workload or host, or nothing of it there",
		errs.Conflict: "it has exited, or is being migrated",
		errs.Refused:  "it is a fenced copy (--force), or the workload may still run on its owner",
	},
}

func (a *app) cmdContinue() *cobra.Command {
	var o api.ContinueOptions
	cmd := a.command(pageContinue, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		w, err := c.Continue(ctx, name, o)
		if err != nil {
			return err
		}
		return a.show(workloadView(w))
	}))
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if o.Off != "" && !o.Force {
			return badUse(cmd, "--off is for --force")
		}
		if o.Force && o.Host == "" {
			return badUse(cmd, "--force is for --host: say which host's tree is to run")
		}
		return nil
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Host, "host", "", "host whose tree is to run; else the one that owns the workload")
	flags.BoolVar(&o.Force, "force", false, "give the workload to --host, although it moved away from there")
	flags.StringVar(&o.Off, "off", "", "the owner's name, if it does not answer: your word that it is switched off for good")
	return cmd
}
