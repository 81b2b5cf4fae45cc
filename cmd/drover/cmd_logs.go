package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"drover/internal/errs"
	workerapi "drover/worker/api"
)

var pageLogs = page{
	use:   "logs WORKLOAD",
	short: "print a workload's output",
	long: `Prints what a workload has written to its standard output and error, as its host has it. What it wrote before it moved stays on the host where it wrote it.

With --follow it goes on with what comes, until the workload ends or ctrl-C.`,
	example: `drover logs web --tail 20
drover logs web -f --stream stderr`,
	exits: exits{errs.NotFound: "there is no such workload"},
}

func (a *app) cmdLogs() *cobra.Command {
	var opts workerapi.LogOptions
	cmd := a.command(pageLogs, nil)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case opts.Stream != "" && opts.Stream != "stdout" && opts.Stream != "stderr":
			return badUse(cmd, "--stream %q is neither stdout nor stderr", opts.Stream)
		case opts.Tail < 0:
			return badUse(cmd, "--tail %d is negative", opts.Tail)
		}
		return nil
	}
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, name string) (err error) {
		w := a.out
		if a.json {
			lines := &jsonLines{out: json.NewEncoder(a.out)}
			defer func() { err = errors.Join(err, lines.flush()) }()
			w = lines
		}
		err = c.Logs(ctx, name, opts, w)
		if opts.Follow && ctx.Err() != nil {
			return nil // ctrl-C is how following ends
		}
		return err
	})
	flags := cmd.Flags()
	flags.BoolVarP(&opts.Follow, "follow", "f", false, "go on with what comes")
	flags.IntVar(&opts.Tail, "tail", 0, "the last so many lines only; 0 is all")
	flags.StringVar(&opts.Stream, "stream", "", "stdout or stderr only")
	return cmd
}

// jsonLines turns output into one object a line.
type jsonLines struct {
	out  *json.Encoder
	rest []byte
}

type logLine struct {
	Line string `json:"line"`
}

func (j *jsonLines) Write(p []byte) (int, error) {
	j.rest = append(j.rest, p...)
	for {
		line, rest, ok := bytes.Cut(j.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if err := j.out.Encode(logLine{string(line)}); err != nil {
			return 0, err
		}
		j.rest = rest
	}
}

// flush prints a last line without an end.
func (j *jsonLines) flush() error {
	if len(j.rest) == 0 {
		return nil
	}
	return j.out.Encode(logLine{string(j.rest)})
}
