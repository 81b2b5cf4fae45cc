// Command testbed builds the test bed and runs hosts on it by hand.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"drover/internal/errs"
	"drover/testenv/rootfs"
)

// verbs are the command's; each gets the arguments behind its name.
var verbs = []struct {
	name, usage, does string
	run               func(ctx context.Context, args []string) error
}{
	{"build", "build", "build the root file system, once", build},
	{"up", "up BED HOST…", "open a bed and keep it until ctrl-C", up},
	{"exec", "exec BED HOST COMMAND…", "run a command in a host", execute},
	{"down", "down BED", "close a bed that another process holds open", down},
	{"list", "list", "list the beds and their hosts", list},
	{"sweep", "sweep", "remove what beds of dead processes left", sweep},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		if next := errs.NextOf(err); next != "" {
			fmt.Fprintln(os.Stderr, "  "+next)
		}
		os.Exit(errs.KindOf(err).ExitCode())
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 {
		for _, v := range verbs {
			if v.name == args[0] {
				return v.run(ctx, args[1:])
			}
		}
	}
	fmt.Fprintln(os.Stderr, "usage: testbed VERB …")
	for _, v := range verbs {
		fmt.Fprintf(os.Stderr, "  %-28s %s\n", v.usage, v.does)
	}
	return errs.New(errs.Invalid, "no such verb: %q", args)
}

func build(ctx context.Context, _ []string) error {
	_, err := rootfs.Build(ctx, os.Stderr)
	return err
}
