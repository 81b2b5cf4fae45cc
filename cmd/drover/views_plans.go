package main

import (
	"fmt"
	"io"

	"drover/coordinator/api"
)

type (
	plansView []api.Plan
	planView  api.Plan
	drainView api.DrainReport
)

func (v plansView) text(w io.Writer) {
	if len(v) == 0 {
		none(w, "plans", "drover apply and drover drain make them")
		return
	}
	var rows [][]string
	for _, p := range v {
		next := clock(p.NextRun)
		rows = append(rows, []string{p.Spec.Name, string(p.State), planProgress(p).states(), orDash(clock(p.Started)), orDash(clock(p.Ended)), orDash(next)})
	}
	table(w, "NAME STATE MOVES STARTED ENDED NEXT", rows)
}

func (v planView) text(w io.Writer) {
	s := v.Spec
	fact(w, "plan", s.Name)
	fact(w, "state", string(v.State))
	fact(w, "drains", s.Drain)
	fact(w, "asked by", v.By)
	fact(w, "limits", fmt.Sprintf("%d at once, %d from a host, %d to a host", s.Parallel, s.PerSource, s.PerTarget))
	fact(w, "on failure", s.OnFailure)
	fact(w, "cron", s.Cron)
	if s.Deadline > 0 {
		fact(w, "deadline", span(s.Deadline))
	}
	fact(w, "started", clock(v.Started))
	fact(w, "ended", clock(v.Ended))
	fact(w, "next", clock(v.NextRun))
	if len(v.Items) > 0 {
		fmt.Fprintln(w)
		moves(w, v.Items)
	}
}

func moves(w io.Writer, items []api.PlanResult) {
	var rows [][]string
	for _, item := range items {
		rows = append(rows, []string{item.Workload, orDash(item.From), orDash(item.To), item.State, orDash(string(item.Migration)), item.Reason})
	}
	table(w, "WORKLOAD FROM TO STATE MIGRATION REASON", rows)
}

func (v drainView) text(w io.Writer) {
	if len(v.Items) == 0 {
		fmt.Fprintf(w, "nothing runs on %s\n", v.Host)
	} else {
		moves(w, v.Items)
	}
	if v.Plan != "" {
		fmt.Fprintf(w, "\nplan %s\ndrover watch %s\n", v.Plan, v.Plan)
	}
}
