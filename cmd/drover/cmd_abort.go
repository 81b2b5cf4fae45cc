package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
)

var pageAbort = page{
	use:   "abort MIGRATION",
	short: "roll a migration back",
	long: `Asks for a verdict of abort: the target drops what it has, and the workload goes on at its source as if nothing had happened. Until the commit is recorded an abort wins; afterwards it is too late, and the workload is moved back by another migration. A workload's name stands for the migration it is in, or for its last one.

It returns when the migration is rolled back, unless --detach. Aborting what has been rolled back already changes nothing.`,
	example: `drover abort web
drover abort 01hx3-web --reason "wrong host"`,
	exits: exits{
		errs.NotFound: "there is no such migration, or the workload has never been in one",
		errs.Conflict: "it has been decided otherwise",
	},
}

func (a *app) cmdAbort() *cobra.Command {
	var reason string
	var detach bool
	cmd := a.command(pageAbort, nil)
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, name string) error {
		m, err := lastMigrationOf(ctx, c, name)
		if err != nil {
			return err
		}
		if m.Phase == migration.RolledBack {
			a.say("%s has been rolled back already", m.ID)
		} else if m, err = c.AbortMigration(ctx, m.ID, reason); err != nil {
			return err
		}
		if detach || m.Phase.Final() {
			return a.show(migrationView(m))
		}
		if err := a.watchToEnd(ctx, c, m); errs.KindOf(err) != errs.Aborted {
			return err
		}
		return nil // rolled back is what was asked for
	})
	cmd.Flags().StringVar(&reason, "reason", "asked for by the operator", "why, for the record")
	cmd.Flags().BoolVar(&detach, "detach", false, "return once the verdict is recorded")
	return cmd
}

// lastMigrationOf is migrationOf, or the last migration of the workload of that name if it is in none.
func lastMigrationOf(ctx context.Context, c api.Coordinator, name string) (api.Migration, error) {
	m, notNow := migrationOf(ctx, c, name)
	if errs.KindOf(notNow) != errs.NotFound || notNow == nil {
		return m, notNow
	}
	all, err := c.Migrations(ctx, name)
	switch {
	case err != nil:
		return m, errors.Join(err, notNow)
	case len(all) > 0:
		return all[0], nil
	}
	if _, err := c.Workload(ctx, name); err == nil {
		return m, errs.New(errs.NotFound, "%s has never been migrated", name)
	}
	return m, notNow
}
