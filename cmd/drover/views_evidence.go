package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

type evidenceView api.Evidence

func (v evidenceView) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %s from %s to %s, %s\n", v.Migration, v.Workload, v.Source, v.Target, v.Phase)
	fact(w, "asked by", v.By)
	fact(w, "epoch", fmt.Sprintf("%d at admission", v.Epoch))
	fact(w, "source", hostAtAdmission(v.Source, v.SourceBoot))
	fact(w, "target", hostAtAdmission(v.Target, v.TargetBoot))
	fact(w, "reason", v.Reason)
	fact(w, "waiting", v.Waiting)
	fmt.Fprintln(w)
	var rows, said [][]string
	for _, t := range v.Entries {
		rows = append(rows, []string{fmt.Sprint(t.Index), numberOrDash(t.Term), string(t.Phase), exact(t.Time), numberOrDash(uint64(t.Epoch)), orDash(t.Owner), orDash(t.By), t.Note})
		for _, a := range t.Answers {
			said = append(said, []string{fmt.Sprint(t.Index), a.Host, string(a.Role), exact(a.Heard), answerText(a)})
		}
	}
	table(w, "INDEX TERM PHASE TIME EPOCH OWNER BY NOTE", rows)
	if len(said) > 0 {
		fmt.Fprintln(w)
		table(w, "BEFORE HOST AS HEARD SAID", said)
	}
	fmt.Fprintln(w)
	for _, r := range v.Replicas {
		fmt.Fprintf(w, "coordinator %s %s\n", r.Name, replicaText(api.Evidence(v), r))
	}
	section(w, "shown", v.Holds)
	section(w, "not known", v.Unknown)
	section(w, "wrong", v.Wrong)
}

func section(w io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, line := range lines {
		fmt.Fprintf(w, "  - %s\n", line)
	}
}

func hostAtAdmission(name, boot string) string {
	if boot == "" {
		return name + ", whose boot id at admission is not recorded"
	}
	return name + ", boot id " + boot + " at admission"
}

// replicaText says whether a coordinator has the verdict's entry.
func replicaText(e api.Evidence, r api.Replica) string {
	if r.Index == 0 {
		return "does not answer"
	}
	verdict := uint64(0)
	for _, t := range e.Entries {
		if t.Phase == migration.Committed || t.Phase == migration.Aborted || t.Phase == migration.Reclaimed {
			verdict = t.Index
		}
	}
	switch {
	case verdict == 0:
		return fmt.Sprintf("has applied the log up to %d", r.Index)
	case r.Index < verdict:
		return fmt.Sprintf("has applied the log up to %d only: not the verdict's entry, yet", r.Index)
	}
	return fmt.Sprintf("has applied the log up to %d, the verdict's entry among it", r.Index)
}

// answerText is what a host had said, in words.
func answerText(a api.Answer) string {
	var said []string
	add := func(is bool, format string, args ...any) {
		if is {
			said = append(said, fmt.Sprintf(format, args...))
		}
	}
	add(a.Removed, "was removed from the cluster")
	add(!a.Silent.IsZero(), "did not answer since %s", exact(a.Silent))
	add(a.Absent, "knew no such session")
	add(a.Step != "", "%s", a.Step)
	add(a.Verdict != "", "knew %s", a.Verdict)
	add(a.Digest != "", "digest %s", a.Digest)
	add(!a.FrozenAt.IsZero(), "frozen at %s (its clock)", exact(a.FrozenAt))
	add(!a.ReleasedAt.IsZero(), "released by %s (its clock)", exact(a.ReleasedAt))
	add(a.Role == migration.Target && a.Step == workerapi.StepReleased && a.Alive, "alive")
	add(a.ExitSignal != 0, "ended by signal %d", a.ExitSignal)
	add(a.NeverRan, "it never ran")
	add(a.Error != "", "%s", a.Error)
	add(a.Boot != "", "boot id %s", a.Boot)
	return strings.Join(said, ", ")
}

// exact is a time for evidence: UTC, to the millisecond.
func exact(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func numberOrDash(n uint64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
