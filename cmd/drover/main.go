// Command drover moves running Linux process trees between hosts, live.
//
// It is one binary: the daemons (`drover coordinator`, `drover worker`), the keeper that a worker starts for each tree, and
// the operator's verbs, which ask a coordinator over SSH. There is one file a verb, cmd_*.go; app.go is what they share,
// connect.go how they reach the cluster, printer.go how they answer, views_*.go what the answers look like, help.go what
// `drover help` and docs/cli.md say. No verb decides anything about a migration: that is the coordinators' part.
package main

import (
	"context"
	"os"

	"drover/worker/keeper"
)

//go:generate go test -run TestDocuments . -update

func main() { os.Exit(Main()) }

// Main is the program; tests run it as a command of its own.
func Main() int {
	// A keeper may be on its way to becoming a workload's first process: nothing else is set up for it.
	if len(os.Args) > 1 && os.Args[1] == "keeper" {
		return keeper.Main(os.Args[2:])
	}
	a := newApp(os.Stdin, os.Stdout, os.Stderr)
	return a.run(context.Background(), os.Args[1:])
}
