package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
)

var pageMigrate = page{
	use:   "migrate WORKLOAD",
	short: "move a workload to another host, live",
	long: `Moves a workload to another host while it runs. The doctor looks first, and what it refuses touches nothing. Then the tree's memory is copied in rounds while the tree goes on; once what is left can be sent within --downtime the tree is frozen, the rest is sent, and it is rebuilt on the target, complete but not yet running. Only then do the coordinators record the verdict, once and for all: from there the target runs, or the source goes on as if nothing had happened.

Progress is shown until the end: phase, round, pages, bytes on the wire and their rate, the blackout if it were cut over now, the time left; then a table of the rounds and the blackout as it was measured. On a terminal it is drawn in place, otherwise printed in lines.

ctrl-C asks whether to abort (without a terminal it aborts): the move is rolled back and the outcome waited for. A second ctrl-C leaves it to the cluster, which does not need this command, and says how to watch it.

--policy says what matters most. It only stands for other options, which win where they are given:

    gentle     the tree must not notice: 32 MB/s, rests between rounds, waits up to 30s for a quiet moment, never goes over --downtime but gives up
    fast       rounds as fast as the link takes them, then the freeze, over --downtime if they cannot make it less
    must-move  16 rounds, waits 5s, then takes 20, 40, 60, 80 % of its time from the tree, and goes over --downtime if even that does not help

What is taken from the tree is given back before it is frozen, or when the move is given up.

--dry-run opens everything and sends two real rounds, says how long the move would take and the tree stand still, and what the policy would do, and leaves nothing behind on either host or in the record. It takes as long as the first round does. ctrl-C ends it.

Defaults come from the client's configuration, section migrate.`,
	example: `drover migrate web --to beta
drover migrate cache --to anywhere --downtime 100ms --strict
drover migrate cache --to beta --policy must-move --dry-run
drover migrate job --to beta --final-state stopped --source-final-state stopped`,
	exits: exits{
		errs.Failed:   "it was tried and did not work, or was left to the cluster by ctrl-C",
		errs.NotFound: "there is no such workload or host",
		errs.Conflict: "it is being migrated already, has exited, or the host is cordoned",
		errs.Refused:  "the doctor says NO-GO, or the target has not enough memory",
		errs.Aborted:  "it was rolled back: the workload runs on its source as before",
	},
}

func (a *app) cmdMigrate() *cobra.Command {
	var to string
	var detach, dry bool
	var move moveFlags
	cmd := a.command(pageMigrate, nil)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" {
			return badUse(cmd, "--to is missing")
		}
		if dry {
			if err := dryRunFlags(detach, cmd.Flags().Changed); err != nil {
				return err
			}
		}
		return move.check()
	}
	cmd.RunE = a.steer(func(ctx context.Context, c *cluster, args []string) error {
		req := api.MigrateRequest{Workload: args[0], To: to, Options: move.options(c.cfg.Migrate)}
		if dry {
			return a.dryRun(ctx, c, req)
		}
		m, err := a.admit(ctx, c, req)
		if err != nil {
			return err
		}
		if detach {
			return a.show(admittedView(m))
		}
		return a.follow(ctx, c, m)
	})
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", `the target, or "anywhere" to let the cluster choose; required`)
	flags.BoolVar(&detach, "detach", false, "return once it is admitted; drover watch shows the rest")
	flags.BoolVar(&dry, "dry-run", false, "make two rounds, say what the move would come to, and undo them: the tree is never stopped")
	move.single(flags)
	move.common(flags)
	return cmd
}

// admit asks for a migration. Until it is answered, ctrl-C leaves open whether there is one.
func (a *app) admit(ctx context.Context, c *cluster, req api.MigrateRequest) (api.Migration, error) {
	ctx, stop := interruptible(ctx)
	defer stop()
	m, err := c.Migrate(ctx, req)
	if errors.Is(err, context.Canceled) {
		return m, errs.New(errs.Failed, "interrupted before the cluster had answered").
			WithNext("drover migrations %s says whether it began", req.Workload)
	}
	return m, err
}
