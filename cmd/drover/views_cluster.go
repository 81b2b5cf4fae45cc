package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/internal/pki"
)

type (
	clusterView   api.ClusterStatus
	tokenView     api.Token
	operatorsView []api.Operator
)

func (v clusterView) text(w io.Writer) {
	leader := v.Leader
	if leader == "" {
		leader = "nobody"
	}
	fmt.Fprintf(w, "cluster %s: %s leads, term %d, index %d\n\n", v.Name, leader, v.Term, v.Index)
	var rows [][]string
	for _, c := range v.Coordinators {
		rows = append(rows, []string{c.Name, c.Address, orDash(until(c.CertificateUntil)), coordinatorState(c) + certificateWarning(c.CertificateUntil)})
	}
	table(w, "COORDINATOR ADDRESS CERTIFICATE STATE", rows)
	v.keys(w)
	v.waiting(w)
}

// waiting lists the migrations that nobody drives.
func (v clusterView) waiting(w io.Writer) {
	if len(v.UnderWay) == 0 {
		return
	}
	var rows [][]string
	for _, m := range v.UnderWay {
		rows = append(rows, []string{string(m.Migration), m.Workload, m.Source, m.Target, string(m.Phase), clock(m.Since), waitsAs(m.Phase)})
	}
	fmt.Fprintln(w)
	table(w, "WAITING WORKLOAD FROM TO PHASE SINCE AND", rows)
}

// waitsAs is what a migration that nobody drives does meanwhile.
func waitsAs(p migration.Phase) string {
	switch p {
	case migration.Admitted, migration.Copying:
		return "its tree runs on the source, copying goes on"
	case migration.Frozen, migration.Staged, migration.Held:
		return "its tree is held until there is a verdict"
	case migration.Committed:
		return "COMMIT is recorded: held until its target has heard of it"
	case migration.Released:
		return "its tree runs on the target, the source's is held"
	}
	return "its tree runs on the source, or is held until that has heard of the verdict"
}

// keys says how far a change of the cluster's key is, if there is one.
func (v clusterView) keys(w io.Writer) {
	if len(v.Keys) < 2 {
		return
	}
	switched := v.Keys[1].Signs
	fmt.Fprint(w, "\nthe cluster's key is being changed; both are trusted:\n")
	for i, k := range v.Keys {
		name := [...]string{"old", "new"}[i]
		if k.Signs {
			name += ", signs"
		}
		fact(w, name, k.Key)
	}
	waiting, next := v.Keys[1].Waiting, "put the new line into every client.yaml, then drover cluster rotate-keys --switch"
	if switched {
		waiting, next = v.Keys[0].Waiting, "drover cluster rotate-keys --retire"
	}
	if len(waiting) > 0 {
		next = "wait for " + strings.Join(waiting, ", ") + "; then " + next
	}
	fact(w, "next", next)
}

func coordinatorState(c api.CoordinatorState) string {
	state := "silent"
	if c.Healthy {
		state = "up"
	}
	if c.Leader {
		state += ", leads"
	}
	return state
}

// soon is how long before its end a certificate is worth a warning: a member renews its own when a third of their life is left,
// so that one that is older has tried in vain.
const soon = pki.MemberLife / 4

// certificateWarning is what to say of a member's certificates, "" while they are good for long.
func certificateWarning(end time.Time) string {
	switch left := time.Until(end); {
	case end.IsZero() || left > soon:
		return ""
	case left <= 0:
		return ", its certificates have expired"
	default:
		return fmt.Sprintf(", its certificates expire in %s", span(left.Truncate(time.Minute)))
	}
}

func (v tokenView) text(w io.Writer) {
	fmt.Fprintln(w, v.Token)
	fmt.Fprintf(w, "\nlets one %s join until %s:\n  drover join --role %s --token - --name NAME   # and the token on standard input\n", v.Role, clock(v.Expires), v.Role)
	if left := time.Until(v.Expires); left > 0 {
		fmt.Fprintf(w, "it is a secret, good once and for %s\n", span(left.Round(time.Second)))
	}
}

func (v operatorsView) text(w io.Writer) {
	var rows [][]string
	for _, o := range v {
		rows = append(rows, []string{o.Name, o.Role, o.Key})
	}
	table(w, "NAME ROLE KEY", rows)
}
