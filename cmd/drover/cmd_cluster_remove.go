package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
)

var pageClusterRemove = page{
	use:   "remove COORDINATOR",
	short: "take a coordinator out of the cluster",
	long: `Takes a coordinator out of the cluster for good, one that is dead above all: while it is a member it counts towards the majority that every decision needs. The one that leads hands the lead over first. It is refused if a majority of those that remain does not answer, and for the last one.

It asks before it does so, unless --yes. Afterwards stop its daemon, if it still runs, and destroy its state directory: that holds the key of the cluster's authority. Another machine takes its place with drover token new --role coordinator and drover join; the same name may be used again. Workers and clients that name its address in their configuration go on with the others.`,
	example: `drover cluster remove c2
drover cluster remove c2 --yes && drover token new --role coordinator`,
	exits: exits{
		errs.NotFound: "no coordinator is called that",
		errs.Conflict: "it is the last one, or too few of the others answer",
	},
}

func (a *app) cmdClusterRemove() *cobra.Command {
	var yes bool
	cmd := a.command(pageClusterRemove, nil)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if !yes && (!a.asks || a.json) {
			return badUse(cmd, "--yes is missing, and there is nobody to ask")
		}
		return nil
	}
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, name string) error {
		if !yes {
			if err := a.confirm(ctx, c, name); err != nil {
				return err
			}
		}
		status, err := c.RemoveCoordinator(ctx, name)
		if err != nil {
			return err
		}
		a.say("removed %s; %s", name, tolerates(len(status.Coordinators)))
		return a.show(clusterView(status))
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirm has the person say that they mean it.
func (a *app) confirm(ctx context.Context, c *cluster, name string) error {
	status, err := c.Cluster(ctx)
	if err != nil {
		return err
	}
	m, ok := memberNamed(status, name)
	if !ok {
		return errs.New(errs.NotFound, "no coordinator is called %q", name).WithNext("drover status lists them")
	}
	a.question(fmt.Sprintf("take %s at %s, which is %s, out of the cluster %s for good; %s? [y/N] ",
		name, m.Address, coordinatorState(m), status.Name, tolerates(len(status.Coordinators)-1)))
	defer a.answered()
	answer, err := a.typed(ctx)
	if err == nil && answer != "y" && answer != "yes" {
		err = errs.New(errs.Failed, "%s stays a coordinator", name)
	}
	return err
}

// typed is the line that the person types, in small letters.
func (a *app) typed(ctx context.Context) (string, error) {
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.in).ReadString('\n')
		lines <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case line := <-lines:
		return line, nil
	}
}

func memberNamed(status api.ClusterStatus, name string) (api.CoordinatorState, bool) {
	for _, m := range status.Coordinators {
		if m.Name == name {
			return m, true
		}
	}
	return api.CoordinatorState{}, false
}

// tolerates says how many of so many coordinators may fail.
func tolerates(n int) string {
	if may := (n - 1) / 2; may > 0 {
		return fmt.Sprintf("of the %d that remain %d may fail", n, may)
	}
	return fmt.Sprintf("of the %d that remain none may fail", n)
}
