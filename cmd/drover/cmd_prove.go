package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/errs"
)

var pageProve = page{
	use:   "prove MIGRATION",
	short: "print the evidence that a migration never made two copies and lost none",
	long: `Prints what the replicated record holds on a migration, entry by entry: its index and term in the log, the epoch and the owner that it left the workload with, who proposed it, and what both hosts had said when it was proposed, with their boot ids, digests and clocks. Below that stand the coordinators that have the verdict's entry, what is shown by all of it, and what is not known. A workload's name stands for the migration it is in, or for its last one.

The record is read linearizably: the coordinator that answers has proved that it leads. Times are UTC; whose clock they are of is said. Nothing here compares two hosts' clocks: the order is that of the log.

It works for migrations that are under way, too. The cluster keeps the evidence on the last 1000 migrations that have ended.`,
	example: `drover prove web
drover prove 01hx3-web --json | jq '.holds[], .unknown[]'`,
	exits: exits{
		errs.Failed:   "evidence is missing, or contradicts itself: what is missing is the last that is printed",
		errs.NotFound: "there is no such migration, or it is forgotten, or the workload has never been in one",
		errs.Conflict: "the migration is not over: what was printed is the evidence so far",
	},
}

func (a *app) cmdProve() *cobra.Command {
	return a.command(pageProve, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		m, err := lastMigrationOf(ctx, c, name)
		if err != nil {
			return err
		}
		e, err := c.Evidence(ctx, m.ID)
		if err != nil {
			return err
		}
		if err := a.show(evidenceView(e)); err != nil {
			return err
		}
		switch {
		case len(e.Wrong) > 0:
			return errs.New(errs.Failed, "the evidence on %s contradicts itself: %s", e.Migration, e.Wrong[0]).
				WithNext("keep it (--json), and report it: this must not be")
		case !e.Over:
			return errs.New(errs.Conflict, "%s is not over: it is %s", e.Migration, e.Phase).WithNext("drover watch %s", e.Migration)
		case !e.Complete():
			return errs.New(errs.Failed, "the evidence on %s is not complete: %s", e.Migration, e.Unknown[0])
		}
		return nil
	}))
}
