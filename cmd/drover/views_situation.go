package main

import (
	"fmt"
	"io"
	"strings"

	"drover/coordinator/api"
)

type situationView api.Situation

func (v situationView) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %s from %s to %s, %s\n", v.Migration, v.Workload, v.Source, v.Target, v.Phase)
	fact(w, "owner", fmt.Sprintf("%s, at epoch %d", v.Owner, v.Epoch))
	fact(w, "waiting", v.Waiting)
	fmt.Fprintln(w)
	var rows [][]string
	for _, a := range v.Answers {
		rows = append(rows, []string{a.Host, string(a.Role), exact(a.Heard), answerText(a)})
	}
	table(w, "HOST AS HEARD SAID", rows)
	section(w, "known", v.Because)
	if len(v.Choices) == 0 {
		fmt.Fprintln(w, "\nnobody's decision is needed")
		return
	}
	for _, c := range v.Choices {
		fmt.Fprintf(w, "\nif %s:\n", decisionText(c.Decision, c.Host))
		fmt.Fprintf(w, "  before    %s\n", c.First)
		fmt.Fprintf(w, "  then      %s\n", c.Then)
		fmt.Fprintf(w, "  decide    drover resolve %s --%s --vouch %s --reason TEXT\n", v.Migration, c.Decision, c.Host)
	}
}

// decisionText is a decision in words: "target beta is dead".
func decisionText(d api.Decision, host string) string {
	who, is, _ := strings.Cut(string(d), "-is-")
	return fmt.Sprintf("%s %s is %s", who, host, is)
}
