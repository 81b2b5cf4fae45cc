package moves

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/testenv/cluster"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

// footprint is what exists on the hosts. A daemon is called by its name, not by its pid: a restarted one is the same.
type footprint struct {
	things      host.Snapshot
	descriptors map[*cluster.Member]int // of daemons
}

// spare is how many more descriptors a daemon may have after somebody died: another leads, and is connected to everybody.
const spare = 12

// expected are things that come and stay by design: Raft's snapshots, which come when they come, and the memory of a workload's
// epoch; and drover's own empty cgroups, which a reboot takes along.
func expected(thing string) bool {
	return strings.Contains(thing, "/drover-coordinator/snapshots/") || strings.Contains(thing, "file /var/lib/drover/workloads/") ||
		strings.HasSuffix(thing, ": cgroup /drover/") || strings.HasSuffix(thing, ": cgroup /drover/_keepers/")
}

func (g *ground) footprint(t *testing.T) footprint {
	t.Helper()
	seen, err := g.Bed.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	print := footprint{host.Snapshot{}, map[*cluster.Member]int{}}
	for line := range seen {
		if m, rest := g.daemon(line); m != nil {
			var n int
			if _, err := fmt.Sscanf(rest, "has %d descriptors", &n); err == nil {
				print.descriptors[m] = n
				continue
			}
			line = fmt.Sprintf("%s: daemon %s", m.Name, rest)
		}
		print.things[line] = true
	}
	return print
}

// daemon is the member whose daemon a line of a snapshot is about, and what it says of it.
func (g *ground) daemon(line string) (*cluster.Member, string) {
	for _, m := range g.members() {
		if rest, ok := strings.CutPrefix(line, fmt.Sprintf("%s: process %d ", m.Name, m.Daemon.Pid)); ok {
			return m, rest
		}
	}
	return nil, ""
}

func (g *ground) members() []*cluster.Member {
	return slices.Concat(g.Coordinators, g.Workers)
}

// since lists what has appeared and what is gone. A daemon may have as many descriptors as before and spare ones more.
func (f footprint) since(earlier footprint, spare int) []string {
	diff := slices.DeleteFunc(f.things.Diff(earlier.things), expected)
	for m, n := range f.descriptors {
		if before := earlier.descriptors[m]; n > before+spare {
			diff = append(diff, fmt.Sprintf("+ %s: %d descriptors of its daemon, %d before", m.Name, n, before))
		}
	}
	return diff
}

// nothingLeft fails the test unless the hosts look as they did before the first tree ran there.
func (g *ground) nothingLeft(t *testing.T, spare int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Patience)
	defer cancel()
	for {
		diff := g.footprint(t).since(g.before, spare)
		if len(diff) == 0 {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the hosts are not as they were:\n%s", strings.Join(diff, "\n"))
		}
	}
}
