package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"drover/internal/errs"
	"drover/internal/migration"
)

var pageCheckpoint = page{
	use:   "checkpoint WORKLOAD",
	short: "write a workload's complete image into a directory on its host",
	long: `Writes the tree, with its memory, into a directory on the host where it runs, so that drover restore can bring it back later. The directory is made, mode 0700; one that exists must be empty, belong to root and be writable by nobody else, and no link. It holds all that the tree had in memory, secrets too.

--final-state says what the tree is left as: running (the default), stopped, or dead. A tree that goes on running may change files and close connections that the image needs; what it writes afterwards does not agree with a copy restored later.`,
	example: `drover checkpoint web --dir /var/tmp/web-1
drover checkpoint web --dir /var/tmp/web-2 --final-state dead`,
	exits: exits{
		errs.NotFound: "there is no such workload",
		errs.Conflict: "it has exited, or is being migrated",
		errs.Refused:  "it cannot be dumped, or the directory holds something, or is not root's alone",
	},
}

func (a *app) cmdCheckpoint() *cobra.Command {
	var dir string
	var final finalState
	cmd := a.command(pageCheckpoint, nil)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := imageDir(cmd, dir); err != nil {
			return err
		}
		return final.resolve(migration.OpSnapshotDump)
	}
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, name string) error {
		report, err := c.Checkpoint(ctx, name, dir, migration.FinalState(final))
		if err != nil {
			return err
		}
		return a.show(checkpointView(report))
	})
	cmd.Flags().StringVar(&dir, "dir", "", "directory on the workload's host; required")
	cmd.Flags().Var(&final, "final-state", "running, stopped or dead (default running)")
	return cmd
}

func imageDir(cmd *cobra.Command, dir string) error {
	switch {
	case dir == "":
		return badUse(cmd, "--dir is missing")
	case !filepath.IsAbs(dir) || filepath.Clean(dir) != dir:
		return badUse(cmd, "--dir %q is not a clean absolute path", dir)
	}
	return nil
}

// finalState is a flag's value.
type finalState migration.FinalState

func (f *finalState) Set(s string) error { *f = finalState(s); return nil }
func (f *finalState) String() string     { return string(*f) }
func (f *finalState) Type() string       { return "state" }

// resolve puts in the default and refuses what the operation cannot end in.
func (f *finalState) resolve(op migration.Operation) error {
	state, err := migration.FinalState(*f).Resolve(op)
	if err == nil {
		*f = finalState(state)
	}
	return err
}
