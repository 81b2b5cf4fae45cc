package main

import (
	"github.com/spf13/cobra"

	"drover/internal/errs"
)

var pageHelp = page{
	use: "help [VERB] [VERB]", short: "explain a verb", local: true,
	long:    `Explains a verb: what it does, its flags, examples, and when it ends with which exit code. The same as VERB --help.`,
	example: `drover help migrate`,
}

func (a *app) cmdHelp() *cobra.Command {
	return a.command(pageHelp, func(cmd *cobra.Command, args []string) error {
		found, rest, err := cmd.Root().Find(args)
		if err != nil || len(rest) > 0 {
			return errs.New(errs.Invalid, "help: there is no verb %q", args[len(args)-1]).WithNext("drover help lists them")
		}
		writeHelp(a.out, found)
		return nil
	})
}
