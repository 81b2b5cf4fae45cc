package main

import (
	"github.com/spf13/cobra"

	"drover/internal/errs"
)

var pageCompletion = page{
	use:   "completion SHELL",
	short: "print a shell's completion script",
	long:  `Prints the script that makes bash, zsh or fish complete drover's verbs and flags.`,
	example: `drover completion bash > /etc/bash_completion.d/drover
drover completion fish > ~/.config/fish/completions/drover.fish`,
	local: true,
}

func (a *app) cmdCompletion() *cobra.Command {
	cmd := a.command(pageCompletion, func(cmd *cobra.Command, args []string) error {
		switch args[0] {
		case "bash":
			return cmd.Root().GenBashCompletionV2(a.out, true)
		case "zsh":
			return cmd.Root().GenZshCompletion(a.out)
		case "fish":
			return cmd.Root().GenFishCompletion(a.out, true)
		}
		return errs.New(errs.Invalid, "there is no completion for %q", args[0]).WithNext("choose one of bash, zsh, fish")
	})
	cmd.ValidArgs = []string{"bash", "zsh", "fish"}
	return cmd
}
