package main

import (
	"fmt"
	"io"
	"strings"

	"drover/coordinator/api"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

type (
	workloadsView  []api.Workload
	workloadView   api.Workload
	checkpointView workerapi.CheckpointReport
)

func (v workloadsView) text(w io.Writer) {
	if len(v) == 0 {
		none(w, "workloads", "drover run starts one")
		return
	}
	var rows [][]string
	for _, l := range v {
		s := l.Status
		rows = append(rows, []string{l.Name, l.Owner, stateOf(l), orDash(l.Spec.Address), fmt.Sprint(s.Processes), fmt.Sprint(s.Threads), bytesOf(s.RSS), since(s.Started)})
	}
	table(w, "NAME HOST STATE ADDRESS PROCESSES THREADS MEMORY STARTED", rows)
}

// stateOf is a workload's state, with what makes it more than a word.
func stateOf(l api.Workload) string {
	s := l.Status
	switch {
	case s.State == workload.Exited && s.Signal != 0:
		return fmt.Sprintf("exited (signal %d)", s.Signal)
	case s.State == workload.Exited && s.ExitCode != nil:
		return fmt.Sprintf("exited (%d)", *s.ExitCode)
	case s.State == "":
		return "unknown"
	}
	return string(s.State)
}

func (v workloadView) text(w io.Writer) {
	l, s, spec := api.Workload(v), v.Status, v.Spec
	fact(w, "workload", l.Name)
	fact(w, "host", l.Owner)
	fact(w, "state", stateOf(l))
	for _, left := range l.Copies {
		fact(w, "copy", fmt.Sprintf("on %s, %s since epoch %d", left.Host, left.State, left.Epoch))
	}
	fact(w, "migration", string(l.Migration))
	fact(w, "epoch", l.Epoch.String())
	if spec.Kind == workload.Adopt {
		fact(w, "adopted", findText(spec.Find))
	}
	fact(w, "command", quoted(spec.Command))
	fact(w, "address", spec.Address)
	fact(w, "gateway", spec.Gateway)
	fact(w, "rootfs", spec.Rootfs)
	fact(w, "user", spec.User)
	fact(w, "directory", spec.Dir)
	for _, vol := range spec.Volumes {
		how := "carried"
		if vol.Shared {
			how = "shared"
		}
		fact(w, "volume", fmt.Sprintf("%s at %s, %s", vol.Host, vol.Inside, how))
	}
	if s.Pid != 0 {
		fact(w, "pid", fmt.Sprint(s.Pid))
		fact(w, "tree", fmt.Sprintf("%s, %s, %s", plural(s.Processes, "process"), plural(s.Threads, "thread"), bytesOf(s.RSS)))
	}
	fact(w, "trouble", s.Trouble)
	fact(w, "cgroup", s.Cgroup)
	fact(w, "started", clock(s.Started))
	fact(w, "exited", clock(s.Exited))
	fact(w, "created", clock(l.Created))
}

func findText(f workload.Find) string {
	switch {
	case f.Unit != "":
		return "unit " + f.Unit
	case f.Cgroup != "":
		return "cgroup " + f.Cgroup
	}
	return fmt.Sprintf("pid %d", f.Pid)
}

// quoted is a command as a shell would take it.
func quoted(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		if word == "" || strings.ContainsAny(word, " \t\n'\"\\$`!*?[](){}<>|&;#~") {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		words[i] = word
	}
	return strings.Join(words, " ")
}

func (v checkpointView) text(w io.Writer) {
	fact(w, "directory", v.Dir)
	fact(w, "size", bytesOf(v.Bytes))
	fact(w, "left", string(v.Final))
	fact(w, "digest", v.Digest)
}
