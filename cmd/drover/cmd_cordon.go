package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/errs"
)

var (
	pageCordon = page{
		use: "cordon HOST", short: "place nothing new on a host",
		long:    `Keeps new workloads and migrations off a host. What runs there stays; what is on its way there goes on.`,
		example: `drover cordon alpha`,
		exits:   exits{errs.NotFound: "there is no such host"},
	}
	pageUncordon = page{
		use: "uncordon HOST", short: "let things be placed on a host again",
		long:    `Takes a cordon back.`,
		example: `drover uncordon alpha`,
		exits:   exits{errs.NotFound: "there is no such host"},
	}
)

func (a *app) cmdCordon() *cobra.Command   { return a.cordoning(pageCordon, true) }
func (a *app) cmdUncordon() *cobra.Command { return a.cordoning(pageUncordon, false) }

func (a *app) cordoning(p page, on bool) *cobra.Command {
	return a.command(p, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		h, err := c.Cordon(ctx, name, on)
		if err != nil {
			return err
		}
		return a.show(hostsView{h})
	}))
}
