package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
)

var pageWatch = page{
	use:   "watch MIGRATION|PLAN",
	short: "follow a migration or a plan to its end",
	long:  `Shows how a migration or a plan goes on, until it has ended, as drover migrate does, and ends with the same exit code. A workload's name stands for the migration it is in. ctrl-C stops watching; what is watched goes on.`,
	example: `drover watch web
drover watch drain-alpha`,
	exits: exits{
		errs.Failed:   "a plan ended and something did not move, or watching was interrupted",
		errs.NotFound: "nothing under way is called that",
		errs.Aborted:  "the migration was rolled back",
	},
}

func (a *app) cmdWatch() *cobra.Command {
	return a.command(pageWatch, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		m, err := migrationOf(ctx, c, name)
		if err == nil {
			return a.watchToEnd(ctx, c, m)
		}
		if errs.KindOf(err) != errs.NotFound {
			return err
		}
		p, planErr := c.Plan(ctx, name)
		if errs.KindOf(planErr) == errs.NotFound {
			return errs.New(errs.NotFound, "no migration or plan is called %q", name).WithNext("drover migrations and drover plans list them")
		}
		if planErr != nil {
			return planErr
		}
		return a.followPlan(ctx, c, p.Spec.Name)
	}))
}

func (a *app) watchToEnd(ctx context.Context, c *cluster, m api.Migration) error {
	f := &following{app: a, cluster: c, last: m}
	return f.run(ctx)
}

// migrationOf is the migration of that id, or the one that the workload of that name is in.
func migrationOf(ctx context.Context, c api.Coordinator, name string) (api.Migration, error) {
	id := migration.ID(name)
	if err := id.Valid(); err != nil {
		return api.Migration{}, err
	}
	m, err := c.Migration(ctx, id)
	if errs.KindOf(err) != errs.NotFound || err == nil {
		return m, err
	}
	w, noWorkload := c.Workload(ctx, name)
	switch {
	case noWorkload != nil && errs.KindOf(noWorkload) != errs.NotFound && errs.KindOf(noWorkload) != errs.Invalid:
		return m, noWorkload
	case noWorkload != nil:
		return m, errs.New(errs.NotFound, "no migration is called %q", name).WithNext("drover migrations lists them")
	case w.Migration == "":
		return m, errs.New(errs.NotFound, "%s is not being migrated", name).WithNext("drover migrations %s lists those that have ended", name)
	}
	return c.Migration(ctx, w.Migration)
}
