package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"drover/internal/pki"
)

var pageTokenNew = page{
	use:   "new",
	short: "make a token that lets one machine join once",
	long:  `Makes a token and prints it, alone on the first line. It holds where the coordinators are, the fingerprint of the cluster's authority, so that the machine knows whom to trust, and a secret. The cluster keeps only the secret's hash: a lost token is replaced by a new one.`,
	example: `drover token new --role worker
drover token new --role coordinator --ttl 10m --json | jq -r .token`,
}

func (a *app) cmdToken() *cobra.Command {
	family := &cobra.Command{Use: "token", Short: "let machines join"}
	var role string
	var ttl time.Duration
	cmd := a.command(pageTokenNew, nil)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case role != pki.RoleWorker && role != pki.RoleCoordinator:
			return badUse(cmd, "--role %q is neither worker nor coordinator", role)
		case ttl <= 0 || ttl > 30*24*time.Hour:
			return badUse(cmd, "--ttl %s is not more than 0 and at most 720h", ttl)
		}
		return nil
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *cluster, _ []string) error {
		t, err := c.NewToken(ctx, role, ttl)
		if err != nil {
			return err
		}
		return a.show(tokenView(t))
	})
	cmd.Flags().StringVar(&role, "role", pki.RoleWorker, "what the machine becomes: worker or coordinator")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is good")
	family.AddCommand(cmd)
	return family
}
