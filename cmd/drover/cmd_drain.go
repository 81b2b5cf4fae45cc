package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"drover/coordinator/api"
	"drover/internal/errs"
)

var pageDrain = page{
	use:   "drain HOST",
	short: "move everything off a host",
	long: `Cordons a host and moves everything that can be moved to other hosts, placed by free memory and the doctor's word. What cannot move is named, with the reason. It is a plan like others: drover plan pauses, resumes and cancels it, and it survives a change of leader.

--dry-run says what would go where and touches nothing. --at and --cron begin it later.

ctrl-C stops watching; the drain goes on. The host stays cordoned until drover uncordon.`,
	example: `drover drain alpha --dry-run
drover drain alpha --max-parallel 2 --deadline 30m
drover drain alpha --at 03:00
drover drain alpha --cron "0 3 * * 6"`,
	exits: exits{
		errs.Failed:   "something could not be moved, or watching was interrupted",
		errs.NotFound: "there is no such host",
		errs.Conflict: "it is being drained already",
	},
}

func (a *app) cmdDrain() *cobra.Command {
	var req api.DrainRequest
	var at string
	var detach bool
	var move moveFlags
	cmd := a.command(pageDrain, nil)
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		req.Host = args[0]
		switch {
		case at != "" && req.Cron != "":
			return badUse(cmd, "--at and --cron exclude each other")
		case req.MaxParallel < 0:
			return badUse(cmd, "--max-parallel %d is negative", req.MaxParallel)
		case !within(req.Deadline, 7*24*time.Hour):
			return badUse(cmd, "--deadline %s is not between 0 and 168h", req.Deadline)
		}
		if req.At, err = parseAt(at, time.Now()); err != nil {
			return badUse(cmd, "--at: %s", err)
		}
		return move.check()
	}
	cmd.RunE = a.askOne(func(ctx context.Context, c *cluster, _ string) error {
		req.Options = move.options(c.cfg.Migrate)
		report, err := c.Drain(ctx, req)
		if err != nil {
			return err
		}
		if req.DryRun || detach || !req.At.IsZero() || req.Cron != "" {
			return a.show(drainView(report))
		}
		return a.followPlan(ctx, c, report.Plan)
	})
	flags := cmd.Flags()
	flags.DurationVar(&req.Deadline, "deadline", 0, "nothing new begins after it; 0 is none")
	flags.IntVar(&req.MaxParallel, "max-parallel", 0, "moves at once; 0 is the cluster's default")
	flags.BoolVar(&req.DryRun, "dry-run", false, "say what would be done and do nothing")
	flags.StringVar(&at, "at", "", "when to begin: 15:04, 2026-01-02T15:04:05Z, or +90m")
	flags.StringVar(&req.Cron, "cron", "", "begin at each tick: minute hour day month weekday, UTC")
	flags.BoolVar(&detach, "detach", false, "return once it is in the record; drover watch shows the rest")
	move.common(flags)
	return cmd
}

// parseAt reads a time: of the day (the next one), from now, or exact.
func parseAt(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if text[0] == '+' {
		if d, err := time.ParseDuration(text[1:]); err == nil && d > 0 {
			return now.Add(d), nil
		}
	}
	if t, err := time.ParseInLocation("15:04", text, now.Location()); err == nil {
		day := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
		if !day.After(now) {
			day = day.AddDate(0, 0, 1)
		}
		return day, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		return t, errs.New(errs.Invalid, "%q is neither 15:04, nor +90m, nor of the form 2026-01-02T15:04:05Z", text)
	case t.Before(now):
		return t, errs.New(errs.Invalid, "%s has passed", text)
	}
	return t, nil
}
