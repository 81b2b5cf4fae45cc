package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
)

var (
	pageOperatorList = page{
		use: "list", short: "list the people who may use the cluster",
		long:    `Lists the operators: name, role and public key.`,
		example: `drover operator list`,
	}
	pageOperatorSet = page{
		use: "set NAME", short: "let somebody use the cluster, or change what they may do",
		long: `Lists a person by their public SSH key, with a role:

  viewer    may look at everything, a workload's output too
  operator  may also start, stop, move and drain
  admin     may also make tokens, list operators and forget hosts

They use the key by a file or by their SSH agent. A change holds at once: their open connections are closed. Give them the cluster's authority and the coordinators' addresses for their client.yaml.`,
		example: `drover operator set alice --role operator --key ~/alice.pub
drover operator set alice --role viewer --key "ssh-ed25519 AAAA… alice"`,
		exits: exits{
			errs.NotFound: "the key's file does not exist",
			errs.Conflict: "the key is somebody else's, or the last admin would cease to be one",
		},
	}
	pageOperatorRemove = page{
		use: "remove NAME", short: "let somebody use the cluster no more",
		long:    `Takes a person off the list and closes their connections. The last admin stays.`,
		example: `drover operator remove alice`,
		exits: exits{
			errs.NotFound: "nobody is called that",
			errs.Conflict: "it is the last admin",
		},
	}
)

func (a *app) cmdOperator() *cobra.Command {
	family := &cobra.Command{Use: "operator", Short: "say who may use the cluster"}
	family.AddCommand(
		a.command(pageOperatorList, a.ask(func(ctx context.Context, c *cluster, _ []string) error {
			all, err := c.Operators(ctx)
			if err != nil {
				return err
			}
			return a.show(operatorsView(all))
		})),
		a.cmdOperatorSet(),
		a.command(pageOperatorRemove, a.askOne(func(ctx context.Context, c *cluster, name string) error {
			if err := c.SetOperator(ctx, api.Operator{Name: name}); err != nil {
				return err
			}
			return a.show(doneView{"removed", name})
		})),
	)
	return family
}

func (a *app) cmdOperatorSet() *cobra.Command {
	var op api.Operator
	cmd := a.command(pageOperatorSet, nil)
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		op.Name = args[0]
		switch op.Role {
		case pki.LevelViewer, pki.LevelOperator, pki.LevelAdmin:
		default:
			return badUse(cmd, "--role %q is none of viewer, operator, admin", op.Role)
		}
		if op.Key == "" {
			return badUse(cmd, "--key is missing")
		}
		if err := pki.ValidName(op.Name); err != nil {
			return err
		}
		op.Key, err = publicKey(op.Key)
		return err
	}
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, _ string) error {
		if err := c.SetOperator(ctx, op); err != nil {
			return err
		}
		return a.show(operatorsView{op})
	})
	cmd.Flags().StringVar(&op.Role, "role", pki.LevelOperator, "viewer, operator or admin")
	cmd.Flags().StringVar(&op.Key, "key", "", "public SSH key, or its file; required")
	return cmd
}
