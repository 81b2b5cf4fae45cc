package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/errs"
	workerapi "drover/worker/api"
)

var pageDoctor = page{
	use:   "doctor WORKLOAD",
	short: "say whether a workload can move to a host; touches nothing",
	long: `Looks at the workload on its host and at the target, and says for each thing that decides about a move: GO; GO-WITH-FLAG, for what drover takes care of itself; or NO-GO, and how to mend it.

It looks at CRIU and the kernel on both sides, processor features that the target lacks, files that are open or mapped (present, same size, mode and build), free pids, ports and addresses, memory and disk, and at what CRIU cannot dump: io_uring, userfaultfd, MPTCP and more. drover migrate does the same first.`,
	example: `drover doctor web --to beta
drover doctor web --to beta --json | jq '.findings[] | select(.verdict == "NO-GO")'`,
	exits: exits{
		errs.NotFound: "there is no such workload or host",
		errs.Refused:  "at least one finding is NO-GO",
	},
}

func (a *app) cmdDoctor() *cobra.Command {
	var to string
	cmd := a.command(pageDoctor, nil)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" {
			return badUse(cmd, "--to is missing")
		}
		return nil
	}
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, name string) error {
		report, err := c.Doctor(ctx, name, to)
		if err != nil {
			return err
		}
		if err := a.show(doctorView(report)); err != nil || report.Verdict != workerapi.NoGo {
			return err
		}
		return errs.New(errs.Refused, "%s cannot move from %s to %s", report.Workload, report.Source, report.Target).
			WithNext("mend what is NO-GO above and ask again")
	})
	cmd.Flags().StringVar(&to, "to", "", "the target; required")
	return cmd
}
