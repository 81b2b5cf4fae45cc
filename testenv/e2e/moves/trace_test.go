package moves

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover/coordinator/api"
	"drover/testenv/rootfs"
)

// golden is the trace of a move as it should be, below the module's root.
const golden = "testenv/traces/move.txt"

func TestAMoveGoesAsTheGoldenTraceSays(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "traced", "alpha", 0, small)
	from := map[string]int{}
	for _, w := range g.Workers {
		from[w.Name] = len(w.Daemon.Log())
	}
	m, err := g.Migrate(t.Context(), nil, s.name, "beta", "--downtime", "5s") // a busy machine's past moves change nothing
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintln(&b, "record")
	for _, line := range recorded(m) {
		fmt.Fprintln(&b, "   ", line)
	}
	for _, side := range []struct{ role, host string }{{"source", m.Source}, {"target", m.Target}} {
		fmt.Fprintln(&b, side.role)
		for _, line := range steps(g.worker(t, side.host).Daemon.Log()[from[side.host]:], side.role) {
			fmt.Fprintln(&b, "   ", line)
		}
	}
	compare(t, b.String())
	s.lives(t, "beta")
	s.end(t)
	g.nothingLeft(t, 0)
}

// recorded is what the record says of the migration, without times and digests.
func recorded(m api.Migration) (lines []string) {
	digest := regexp.MustCompile(`digest [0-9a-f]+`)
	for _, tr := range m.Transitions {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s", tr.Phase, digest.ReplaceAllString(tr.Note, "digest"))))
	}
	return lines
}

var session = regexp.MustCompile(`msg=session .*role=(\S+) step=(\S+) verdict=(\S+) note=(.*)$`)

// steps are those of a session in a worker's log. A step that is said twice is one.
func steps(log, role string) (lines []string) {
	for line := range strings.Lines(log) {
		said := session.FindStringSubmatch(strings.TrimSpace(line))
		if said == nil || said[1] != role {
			continue
		}
		line := strings.Join(strings.Fields(strings.ReplaceAll(strings.Join(said[2:], " "), `"`, "")), " ")
		lines = append(lines, line)
	}
	return slices.Compact(lines)
}

func compare(t *testing.T, got string) {
	t.Helper()
	root, err := rootfs.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, golden)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the move went otherwise than %s says; if that is right, run the test with -update (- golden, + now):\n%s", golden, diff)
	}
}
