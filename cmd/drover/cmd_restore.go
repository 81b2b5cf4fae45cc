package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/errs"
	"drover/internal/migration"
)

var pageRestore = page{
	use:   "restore NAME",
	short: "bring a workload back from such a directory",
	long: `Brings a workload back from a directory that drover checkpoint wrote, on the host that holds it. A workload of that name must not be alive anywhere. The image is checked against its digests first: a torn or foreign one is refused, and so is one that another user than root has written, or may write.

--final-state says what the tree is left as: running (the default) or stopped, so that somebody can look at it before drover continue.`,
	example: `drover restore web --host alpha --dir /var/tmp/web-1
drover restore web --host alpha --dir /var/tmp/web-1 --final-state stopped`,
	exits: exits{
		errs.NotFound: "there is no such host or directory",
		errs.Conflict: "a workload of that name is alive",
		errs.Refused:  "the image is torn or foreign, or not root's alone to write, or the host cannot take it",
	},
}

func (a *app) cmdRestore() *cobra.Command {
	var host, dir string
	var final finalState
	cmd := a.command(pageRestore, nil)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := imageDir(cmd, dir); err != nil {
			return err
		}
		if host == "" {
			return badUse(cmd, "--host is missing")
		}
		return final.resolve(migration.OpRestore)
	}
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, name string) error {
		w, err := c.Restore(ctx, name, host, dir, migration.FinalState(final))
		if err != nil {
			return err
		}
		return a.show(workloadView(w))
	})
	cmd.Flags().StringVar(&host, "host", "", "host that holds the directory; required")
	cmd.Flags().StringVar(&dir, "dir", "", "directory on that host; required")
	cmd.Flags().Var(&final, "final-state", "running or stopped (default running)")
	return cmd
}
