package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

type (
	migrationsView []api.Migration
	migrationView  api.Migration
	admittedView   api.Migration
)

func (v migrationsView) text(w io.Writer) {
	if len(v) == 0 {
		none(w, "migrations", "drover migrate begins one")
		return
	}
	var rows [][]string
	for _, m := range v {
		blackout := "-"
		if m.Blackout > 0 {
			blackout = span(m.Blackout)
		}
		rows = append(rows, []string{string(m.ID), m.Workload, m.Source, m.Target, string(m.Phase), clock(began(m)), span(lasted(m)), blackout, m.Reason})
	}
	table(w, "ID WORKLOAD FROM TO PHASE BEGAN TOOK BLACKOUT REASON", rows)
}

func began(m api.Migration) time.Time {
	if len(m.Transitions) == 0 {
		return time.Time{}
	}
	return m.Transitions[0].Time
}

// lasted is how long it took, or has been under way.
func lasted(m api.Migration) time.Duration {
	switch {
	case len(m.Transitions) == 0:
		return 0
	case m.Phase.Final():
		return m.Transitions[len(m.Transitions)-1].Time.Sub(began(m))
	}
	return time.Since(began(m))
}

func (v admittedView) text(w io.Writer) {
	fmt.Fprintf(w, "admitted %s: %s from %s to %s\n", v.ID, v.Workload, v.Source, v.Target)
	fmt.Fprintf(w, "drover watch %s\n", v.ID)
}

func (v migrationView) text(w io.Writer) {
	m := api.Migration(v)
	fmt.Fprintln(w, headline(m))
	fact(w, "migration", string(m.ID))
	fact(w, "epoch", m.Epoch.String())
	fact(w, "plan", m.Plan)
	fact(w, "asked by", m.By)
	fact(w, "tracker", m.Progress.Tracker)
	fact(w, "fallback", fallbackOf(m.Progress.Rounds))
	fact(w, "compression", m.Progress.Compression)
	fact(w, "found there", foundText(m))
	fact(w, "reason", m.Reason)
	fact(w, "next", m.Next)
	if rows := phaseRows(m); len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, "PHASE AT AFTER NOTE", rows)
	}
	if rows := roundRows(m.Progress.Rounds); len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, "ROUND SCANNED CHANGED SENT WIRE TOOK", rows)
	}
	for _, f := range m.Findings {
		fmt.Fprintf(w, "%s %s on %s: %s\n", f.Verdict, f.Check, f.Host, findingText(f))
	}
	if m.Blackout > 0 {
		fmt.Fprintf(w, "\n%s\n", blackoutText(m.Downtime))
	}
}

// blackoutText is how long the tree stood still, against what was asked for and what was expected.
func blackoutText(d api.Downtime) string {
	text := fmt.Sprintf("blackout %s, within the %s of --downtime", span(d.Measured), span(d.Budget))
	if d.Missed {
		text = fmt.Sprintf("blackout %s, %s longer than the %s of --downtime", span(d.Measured), span(d.Measured-d.Budget), span(d.Budget))
	}
	switch {
	case d.Predicted == 0:
		return text
	case d.Missed && d.Predicted > d.Budget:
		return text + fmt.Sprintf("; %s was predicted (%+.0f%%), and the rounds could not make it less: --strict would have refused", span(d.Predicted), d.Error)
	}
	return text + fmt.Sprintf("; %s was predicted (%+.0f%%)", span(d.Predicted), d.Error)
}

// foundText is what the target had from an earlier visit, "" if that was nothing.
func foundText(m api.Migration) string {
	if m.Progress.PagesKept == 0 {
		return ""
	}
	return fmt.Sprintf("%s of the %s pages that %s had kept of it", count(m.Progress.PagesFound), count(m.Progress.PagesKept), m.Target)
}

// headline is the migration in one sentence.
func headline(m api.Migration) string {
	switch m.Phase {
	case migration.Done:
		return fmt.Sprintf("moved %s from %s to %s in %s", m.Workload, m.Source, m.Target, span(lasted(m)))
	case migration.RolledBack:
		return fmt.Sprintf("%s stays on %s: rolled back after %s", m.Workload, m.Source, span(lasted(m)))
	}
	return fmt.Sprintf("%s from %s to %s: %s for %s", m.Workload, m.Source, m.Target, m.Phase, span(lasted(m)))
}

func phaseRows(m api.Migration) (rows [][]string) {
	for i, t := range m.Transitions {
		after := "-"
		if i > 0 {
			after = span(t.Time.Sub(m.Transitions[i-1].Time))
		}
		rows = append(rows, []string{string(t.Phase), t.Time.Local().Format("15:04:05.000"), after, t.Note})
	}
	return rows
}

// fallbackOf is what the last round said about what could not be tracked as it was meant to be.
func fallbackOf(rounds []workerapi.Round) string {
	for _, r := range slices.Backward(rounds) {
		if !r.Final {
			return r.Track.Fallback
		}
	}
	return ""
}

// roundRows are the rounds and, below them, their sum.
func roundRows(rounds []workerapi.Round) (rows [][]string) {
	var sum workerapi.Round
	for _, r := range rounds {
		name := fmt.Sprint(r.N)
		if r.Final {
			name = "frozen"
		}
		rows = append(rows, roundRow(name, r))
		sum.Track.Scanned += r.Track.Scanned
		sum.Track.Emitted += r.Track.Emitted
		sum.PagesSent += r.PagesSent
		sum.WireBytes += r.WireBytes
		sum.Took += r.Took
	}
	if len(rows) > 1 {
		rows = append(rows, roundRow("all", sum))
	}
	return rows
}

func roundRow(name string, r workerapi.Round) []string {
	return []string{name, count(r.Track.Scanned), count(r.Track.Emitted), count(r.PagesSent), bytesOf(r.WireBytes), span(r.Took)}
}
