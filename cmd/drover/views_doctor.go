package main

import (
	"fmt"
	"io"
	"strings"

	"drover/coordinator/api"
	workerapi "drover/worker/api"
)

type doctorView api.DoctorReport

func (v doctorView) text(w io.Writer) {
	var rows [][]string
	for _, f := range v.Findings {
		rows = append(rows, []string{f.Verdict, f.Check, orDash(f.Host), findingText(f)})
	}
	if len(rows) > 0 {
		table(w, "VERDICT CHECK HOST FINDING", rows)
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s: %s from %s to %s\n", v.Verdict, v.Workload, v.Source, v.Target)
}

// findingText is what was found, and the flag that drover sets or what to do about it.
func findingText(f workerapi.Finding) string {
	parts := []string{f.Detail}
	if f.Flag != "" {
		parts = append(parts, "drover sets "+f.Flag)
	}
	if f.Mend != "" {
		parts = append(parts, "→ "+f.Mend)
	}
	return strings.Join(parts, "  ")
}
