package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

var pageStop = page{
	use:   "stop WORKLOAD",
	short: "end a workload's tree",
	long: `Sends the tree's root a signal, SIGTERM unless --signal says otherwise, and SIGKILL to every process of it that is still there after --grace. The workload stays listed as exited, with its output, until drover rm.

This ends the tree. To let it stand still, use drover checkpoint --final-state stopped.`,
	example: `drover stop web
drover stop cache --signal INT --grace 1m`,
	exits: exits{
		errs.NotFound: "there is no such workload",
		errs.Conflict: "it is being migrated",
	},
}

func (a *app) cmdStop() *cobra.Command {
	var name string
	var grace time.Duration
	var signal int
	cmd := a.command(pageStop, nil)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		if grace < 0 {
			return badUse(cmd, "--grace %s is negative", grace)
		}
		if signal, err = parseSignal(name); err != nil {
			return badUse(cmd, "--signal: %s", err)
		}
		return nil
	}
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, name string) error {
		w, err := c.Stop(ctx, name, signal, grace)
		if err != nil {
			return err
		}
		return a.show(workloadView(w))
	})
	cmd.Flags().StringVar(&name, "signal", "TERM", "signal to send first, by name or number")
	cmd.Flags().DurationVar(&grace, "grace", 10*time.Second, "how long the tree may take to end")
	return cmd
}

func parseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return n, nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	return 0, errs.New(errs.Invalid, "%q is no signal", s)
}
