package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/errs"
	"drover/internal/workload"
)

var pageMigrations = page{
	use:   "migrations [WORKLOAD]",
	short: "list migrations, newest first",
	long:  `Lists the migrations that the cluster remembers, newest first: those under way with their phase, those that have ended with their outcome and blackout. With a workload's name, its own only.`,
	example: `drover migrations
drover migrations web --json`,
	exits: exits{errs.NotFound: "there is no such workload"},
}

func (a *app) cmdMigrations() *cobra.Command {
	cmd := a.command(pageMigrations, nil)
	cmd.RunE = a.ask(func(ctx context.Context, c *cluster, args []string) error {
		name := ""
		if len(args) > 0 {
			name = args[0]
			if err := workload.ValidName("workload", name); err != nil {
				return err
			}
		}
		all, err := c.Migrations(ctx, name)
		if err != nil {
			return err
		}
		if len(all) == 0 && name != "" {
			if _, err := c.Workload(ctx, name); err != nil {
				return err
			}
		}
		return a.show(migrationsView(all))
	})
	return cmd
}
