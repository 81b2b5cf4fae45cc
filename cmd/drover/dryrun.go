package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	workerapi "drover/worker/api"
)

// dryRun shows a dry run to its forecast; ctrl-C ends it, and what it has begun is undone.
func (a *app) dryRun(ctx context.Context, c *cluster, req api.MigrateRequest) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	var last api.DryRun
	err := c.DryRun(ctx, req, func(d api.DryRun) error {
		last = d
		return a.update(dryRunView(d))
	})
	switch {
	case errors.Is(err, context.Canceled):
		return errs.New(errs.Failed, "interrupted: the dry run is undone, %s runs on", req.Workload)
	case err != nil:
		return err
	case last.Forecast == nil:
		return errs.New(errs.Unavailable, "the dry run of %s ended without a forecast", req.Workload).WithNext("try again")
	}
	return a.conclude(dryRunView(last))
}

// dryRunView is a dry run, under way or ended.
type dryRunView api.DryRun

func (v dryRunView) stage() string   { return fmt.Sprint(v.Progress.Round) }
func (v dryRunView) block() []string { return []string{v.line()} }

func (v dryRunView) line() string {
	p := v.Progress
	return fmt.Sprintf("%s  dry run of %s  %s → %s  round %d of 2  %s sent", time.Now().Format("15:04:05"), v.Workload, v.Source, v.Target, p.Round, bytesOf(p.WireBytes))
}

func (v dryRunView) text(w io.Writer) {
	f := v.Forecast
	if f == nil {
		fmt.Fprintln(w, v.line())
		return
	}
	fmt.Fprintf(w, "%s from %s to %s: %s\n", v.Workload, v.Source, v.Target, v.ends())
	fact(w, "policy", string(v.Options.Policy))
	fact(w, "blackout", fmt.Sprintf("%s expected, %s allowed", span(f.Blackout), span(v.Options.Downtime)))
	fact(w, "rounds", fmt.Sprint(f.Rounds))
	fact(w, "time", span(f.Took)+" up to the freeze")
	fact(w, "bytes", bytesOf(f.WireBytes)+" on the wire, at "+rateOf(f.Rate))
	fact(w, "writes", count(uint64(f.DirtyRate))+" pages/s")
	fact(w, "tracker", v.Progress.Tracker)
	if rows := roundRows(v.Progress.Rounds); len(rows) > 0 {
		fmt.Fprintln(w, "\nmeasured")
		table(w, "ROUND SCANNED CHANGED SENT WIRE TOOK", rows)
	}
	for _, finding := range v.Findings {
		fmt.Fprintf(w, "%s %s on %s: %s\n", finding.Verdict, finding.Check, finding.Host, findingText(finding))
	}
	fmt.Fprintf(w, "\nnothing was changed: %s runs on %s\n", v.Workload, v.Source)
}

// ends is what the policy would come to.
func (v dryRunView) ends() string {
	slowed := ""
	if v.Forecast.Throttle > 0 {
		slowed = fmt.Sprintf(", slowed down by %d%%", v.Forecast.Throttle)
	}
	switch v.Forecast.Ends {
	case workerapi.EndsWithin:
		return "would move within --downtime" + slowed
	case workerapi.EndsGivingUp:
		return "would not move: it would give up rather than stand still longer than --downtime" + slowed
	}
	return "would move, but stand still longer than --downtime" + slowed
}

// dryRunFlags says which flags make no sense beside --dry-run.
func dryRunFlags(detach bool, changed func(string) bool) error {
	var no []string
	if detach {
		no = append(no, "--detach")
	}
	for _, name := range []string{"probation", "freeze-deadline"} {
		if changed(name) {
			no = append(no, "--"+name)
		}
	}
	if len(no) == 0 {
		return nil
	}
	return errs.New(errs.Invalid, "migrate: %s makes no sense with --dry-run, which freezes nothing and ends with its forecast", strings.Join(no, ", "))
}
