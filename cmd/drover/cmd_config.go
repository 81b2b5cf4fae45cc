package main

import (
	"github.com/spf13/cobra"

	"drover/configs"
)

var pageConfigSample = page{
	use:   "sample KIND",
	short: "print a commented configuration file with every key",
	long:  `Prints the sample configuration of a worker, a coordinator or a client: every key with its meaning and its default.`,
	example: `drover config sample worker > /etc/drover/worker.yaml
drover config sample client`,
	local: true,
}

func (a *app) cmdConfig() *cobra.Command {
	family := &cobra.Command{Use: "config", Short: "print sample configurations"}
	cmd := a.command(pageConfigSample, func(_ *cobra.Command, args []string) error {
		text, err := configs.Sample(args[0])
		if err != nil {
			return err
		}
		_, err = a.out.Write(text)
		return err
	})
	cmd.ValidArgs = configs.Kinds
	family.AddCommand(cmd)
	return family
}
