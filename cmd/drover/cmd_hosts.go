package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/errs"
)

var (
	pageHosts = page{
		use: "hosts", short: "list the hosts and what they offer",
		long:    `Lists the hosts that have joined: whether their worker is heard of, whether they are cordoned, whether its certificates run out within six hours, free memory, load, CRIU's version and the kernel. Silent means that nothing was heard for five seconds.`,
		example: `drover hosts`,
	}
	pageHostRemove = page{
		use: "rm HOST", short: "forget a host",
		long:    `Forgets a host that has no workload any more: its worker's certificate opens nothing from then on. Drain it first. To come back it joins again, with a new token.`,
		example: `drover host rm gamma`,
		exits: exits{
			errs.NotFound: "there is no such host",
			errs.Conflict: "it still has workloads",
		},
	}
)

func (a *app) cmdHosts() *cobra.Command {
	return a.command(pageHosts, a.ask(func(ctx context.Context, c *cluster, _ []string) error {
		all, err := c.Hosts(ctx)
		if err != nil {
			return err
		}
		return a.show(hostsView(all))
	}))
}

func (a *app) cmdHost() *cobra.Command {
	family := &cobra.Command{Use: "host", Short: "limit what a host sends, or forget it"}
	family.AddCommand(a.cmdHostLimit(), a.command(pageHostRemove, a.askOne(func(ctx context.Context, c *cluster, name string) error {
		if err := c.RemoveHost(ctx, name); err != nil {
			return err
		}
		return a.show(doneView{"removed", name})
	})))
	return family
}
