package doctor

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestTheLeastIsTheSameEverywhere compares what the doctor asks of a worker with the drop-in that gives it and the document that explains it.
func TestTheLeastIsTheSameEverywhere(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var given []string
	for line := range strings.Lines(read("../../configs/systemd/drover-worker-least.conf")) {
		if set, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			given = append(given, strings.Fields(set)...)
		}
	}
	asked := capabilities(setOf(neededNames()...))
	slices.Sort(given)
	slices.Sort(asked)
	if !slices.Equal(given, asked) {
		t.Errorf("the drop-in gives %v\nthe doctor asks for %v", given, asked)
	}
	explained := map[string]bool{}
	for line := range strings.Lines(read("../../docs/security.md")) {
		cells := strings.Split(line, "|")
		if len(cells) == 5 && strings.HasPrefix(cells[1], " `CAP_") {
			for name := range strings.SplitSeq(strings.TrimSpace(cells[1]), ", ") {
				explained[strings.Trim(name, "`")] = true
			}
		}
	}
	if len(explained) != len(asked) || slices.ContainsFunc(asked, func(name string) bool { return !explained[name] }) {
		t.Errorf("docs/security.md explains %v", explained)
	}
}
