package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"drover/configs"
	"drover/internal/errs"
)

var (
	pageLimit = page{
		use: "limit MIGRATION RATE", short: "change what a migration may send",
		long: `Changes what a migration may send a second while it copies, at once, in bytes on the wire: 100MB, 1GiB, or none. The cut-over is not limited. The record keeps it over a change of leader. A workload's name stands for the migration it is in.

The host's limit counts as well: drover host limit.`,
		example: `drover limit web 20MB
drover limit web none`,
		exits: exits{
			errs.NotFound: "there is no such migration, or the workload is not being migrated",
			errs.Conflict: "it is frozen already, or has ended",
		},
	}
	pageHostLimit = page{
		use: "limit HOST RATE", short: "change what a host may send for all its migrations",
		long: `Limits what all migrations away from a host send together a second while they copy, in bytes on the wire: 100MB, 1GiB, or none. It counts within a second for those under way, from the first byte on for those that begin, and stays until it is changed. They share it in equal parts; what one may not use because of its own limit the others get. Cut-overs are not limited.`,
		example: `drover host limit alpha 100MB
drover host limit alpha none`,
		exits: exits{errs.NotFound: "there is no such host"},
	}
)

func (a *app) cmdLimit() *cobra.Command {
	return a.limiting(pageLimit, func(ctx context.Context, c *cluster, name string, rate int64) error {
		m, err := migrationOf(ctx, c, name)
		if err != nil {
			return err
		}
		if m, err = c.LimitMigration(ctx, m.ID, rate); err != nil {
			return err
		}
		return a.show(migrationView(m))
	})
}

func (a *app) cmdHostLimit() *cobra.Command {
	return a.limiting(pageHostLimit, func(ctx context.Context, c *cluster, name string, rate int64) error {
		h, err := c.LimitHost(ctx, name, rate)
		if err != nil {
			return err
		}
		return a.show(hostView(h))
	})
}

// limiting is a verb about something and a rate, which is checked before anything is asked.
func (a *app) limiting(p page, f func(ctx context.Context, c *cluster, name string, rate int64) error) *cobra.Command {
	cmd := a.command(p, nil)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if _, rate, ok := strings.Cut(err.Error(), " in -"); ok && rate != "" && rate[0] >= '0' && rate[0] <= '9' { // -3 looks like a flag
			a.choosePrinter()
			return badUse(cmd, "RATE: -%s is below zero; none lifts the limit", rate)
		}
		return cmd.Root().FlagErrorFunc()(cmd, err)
	})
	var rate configs.Size
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		text := strings.TrimSuffix(args[1], "/s")
		if text == "none" {
			return nil
		}
		if rate, err = configs.ParseSize(text); err != nil {
			return badUse(cmd, "RATE: %s, or none", err)
		}
		return nil
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *cluster, args []string) error { return f(ctx, c, args[0], int64(rate)) })
	return cmd
}
