package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"drover/configs"
	"drover/internal/errs"
)

const rootLong = `drover moves running Linux process trees between hosts, live: a tree's memory is copied while it runs, it stands still for a fraction of a second, and it goes on over there, open connections included. It never runs two copies and never loses one: whatever fails before the verdict, the tree goes on where it was.

A cluster is one, three or five coordinators, which decide and record, and one worker on each host, which acts. The verbs below ask a coordinator; any of them will do. Each verb can be repeated: what is done already is not done twice.

Every verb prints text for people, or with --json one JSON value a line for programs. Errors go to standard error, as one line with the next step below it, or with --json as one object with error, kind, code and next.`

const rootExample = `drover cluster init home --advertise alpha:7201            # a new cluster, with one coordinator
drover run web --address 10.0.0.50/24 -- nginx -g 'daemon off;'
drover doctor web --to beta                                # can it move? touches nothing
drover migrate web --to beta --downtime 200ms
drover drain alpha --dry-run`

// groups order the verbs in the help.
var groups = []*cobra.Group{
	{ID: "trees", Title: "Workloads"},
	{ID: "move", Title: "Moving"},
	{ID: "plan", Title: "Plans and hosts"},
	{ID: "cluster", Title: "The cluster"},
	{ID: "self", Title: "This program"},
}

// newRoot is the whole command line.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "drover",
		Short:         "move running process trees between hosts, live",
		Long:          rootLong,
		Example:       rootExample,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.choosePrinter()
		},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd) })
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		a.choosePrinter()
		return badUse(cmd, "%s", badFlag(err))
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON, one value a line, errors too")
	root.PersistentFlags().StringVar(&a.config, "config", "", "configuration file, else DROVER_CONFIG, else ~/.config/drover/client.yaml; daemons have their own in /etc/drover")
	root.AddGroup(groups...)
	for id, verbs := range map[string][]*cobra.Command{
		"trees": {a.cmdRun(), a.cmdAdopt(), a.cmdWorkloads(), a.cmdShow(), a.cmdLogs(), a.cmdStop(), a.cmdContinue(), a.cmdRemove(),
			a.cmdCheckpoint(), a.cmdRestore()},
		"move": {a.cmdDoctor(), a.cmdMigrate(), a.cmdMigrations(), a.cmdWatch(), a.cmdLimit(), a.cmdAbort(), a.cmdResolve(), a.cmdProve()},
		"plan": {a.cmdApply(), a.cmdPlans(), a.cmdPlan(), a.cmdHosts(), a.cmdHost(), a.cmdCordon(), a.cmdUncordon(), a.cmdDrain()},
		"cluster": {a.cmdCluster(), a.cmdStatus(), a.cmdToken(), a.cmdJoin(), a.cmdOperator(), a.cmdCoordinator(), a.cmdWorker(),
			a.cmdDev()},
		"self": {a.cmdConfig(), a.cmdVersion(), a.cmdCompletion(), a.cmdHelp()},
	} {
		for _, c := range verbs {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	families(root)
	return root
}

// families makes commands that only hold others, the root among them, say what is missing or unknown.
func families(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		families(c)
	}
	if !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			writeHelp(cmd.OutOrStdout(), cmd)
			return nil
		}
		err := errs.New(errs.Invalid, "%sthere is no verb %q", verbs(cmd), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return err.WithNext("did you mean %s?", strings.Join(near, " or "))
		}
		return err.WithNext("%s --help", cmd.CommandPath())
	}
	cmd.SuggestionsMinimumDistance = 2
}

// verbs is how an error about a command begins: its verbs, which for the root are none.
func verbs(cmd *cobra.Command) string {
	_, path, inner := strings.Cut(cmd.CommandPath(), " ")
	if !inner {
		return ""
	}
	return path + ": "
}

// connectingFlags adds what overrules the client's configuration.
func (a *app) connectingFlags(flags *pflag.FlagSet) {
	defaults := configs.DefaultClient()
	all := pflag.NewFlagSet("client", pflag.ContinueOnError)
	configs.Flags(all, &defaults)
	for _, name := range []string{"coordinators", "authority", "identity"} {
		f := all.Lookup(name)
		f.Annotations = map[string][]string{connecting: nil}
		flags.AddFlag(f)
	}
}

// clientFile is the client's configuration: --config, DROVER_CONFIG, or the one in the home directory if it is there ("" if
// not: the environment and flags may say enough).
func (a *app) clientFile() string {
	if a.config != "" {
		return a.config
	}
	if file := os.Getenv("DROVER_CONFIG"); file != "" {
		return file
	}
	if file, err := configs.ClientFile(); err == nil && there(file) {
		return file
	}
	return ""
}
