package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
)

var pageClusterKeys = page{
	use:   "rotate-keys",
	short: "change the key of the cluster's authority",
	long: `Changes the key that everything in the cluster is certified by, without stopping anything: because a coordinator was taken out, which still has it, because it has leaked, or because it is old. It takes three steps, and drover status shows how far it is and whom the next one waits for.

  drover cluster rotate-keys           makes a new key; all coordinators hold it, and everybody trusts both
  drover cluster rotate-keys --switch  the new one signs; every member renews its certificates at once; both are trusted
  drover cluster rotate-keys --retire  the old one is trusted no more; what was certified by it is cut off

Before --switch put the new authority's line, which the first step prints, into every client.yaml, below the old one: afterwards the coordinators show certificates of the new key. Tokens that were made before --switch are of no use after it. --cancel gives a change up before --switch.

A step is refused while it would cut a member off that is not ready, because it is switched off, say, or while a migration copies that began before --switch. --force does it nevertheless: such a member joins again with a token, such a migration fails and its workload stays where it is.`,
	example: `drover cluster rotate-keys
drover cluster rotate-keys --switch
drover status
drover cluster rotate-keys --retire`,
	exits: exits{errs.Conflict: "a member is not ready, or the change is not at that step"},
}

func (a *app) cmdClusterKeys() *cobra.Command {
	steps := map[string]*bool{api.KeySwitch: new(bool), api.KeyRetire: new(bool), api.KeyCancel: new(bool)}
	var force bool
	step := api.KeyBegin
	cmd := a.command(pageClusterKeys, nil)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for name, asked := range steps {
			switch {
			case *asked && step != api.KeyBegin:
				return badUse(cmd, "--%s and --%s are two steps", step, name)
			case *asked:
				step = name
			}
		}
		return nil
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *cluster, _ []string) error {
		status, err := c.RotateKeys(ctx, step, force)
		if err != nil {
			return err
		}
		return a.show(clusterView(status))
	})
	cmd.Flags().BoolVar(steps[api.KeySwitch], api.KeySwitch, false, "have the new key sign")
	cmd.Flags().BoolVar(steps[api.KeyRetire], api.KeyRetire, false, "trust the old key no more")
	cmd.Flags().BoolVar(steps[api.KeyCancel], api.KeyCancel, false, "give the change up, before --switch")
	cmd.Flags().BoolVar(&force, "force", false, "leave members behind that are not ready")
	return cmd
}
