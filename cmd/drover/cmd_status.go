package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
)

var pageStatus = page{
	use: "status", short: "say who coordinates the cluster",
	long: `Says which coordinator leads and whether the others answer. While no majority answers nothing new is decided; what runs goes on, and trees that are held stay held. It then says what one that answers knows by itself: who else does, and which migrations wait; and ends with exit code 6.

Coordinators and workers renew their certificates by themselves when a third of their life is left. From six hours before the end of one on, its member is marked here or in drover hosts: it could not renew it.`,
	example: `drover status`,
}

func (a *app) cmdStatus() *cobra.Command {
	asked := a.ask(func(ctx context.Context, c *cluster, _ []string) error {
		status, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		return a.show(clusterView(status))
	})
	return a.command(pageStatus, func(cmd *cobra.Command, args []string) error {
		err := asked(cmd, args)
		var alone leaderless
		if !errors.As(err, &alone) {
			return err
		}
		if err := a.show(clusterView(alone.status)); err != nil {
			return err
		}
		return undecided(alone.status)
	})
}

// undecided says why a cluster decides nothing.
func undecided(s api.ClusterStatus) error {
	var silent []string
	for _, c := range s.Coordinators {
		if !c.Healthy {
			silent = append(silent, c.Name)
		}
	}
	up, majority := len(s.Coordinators)-len(silent), len(s.Coordinators)/2+1
	if up >= majority {
		return errs.New(errs.Unavailable, "no coordinator leads, though %d of %d answer: they are electing one, or cannot reach each other", up, len(s.Coordinators)).WithNext("try again in a few seconds")
	}
	return errs.New(errs.Unavailable, "nothing is decided: %d of %d coordinators answer, and it takes %d. What runs goes on, what is held stays held", up, len(s.Coordinators), majority).
		WithNext("start %s again, with its data: the record is there", strings.Join(silent, " or "))
}
