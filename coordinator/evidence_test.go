package coordinator

import (
	"slices"
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

func TestHoweverAMigrationEndsItsEvidenceIsComplete(t *testing.T) {
	for name, c := range map[string]struct {
		spoil   func(c *cluster, id migration.ID)
		verdict migration.Verdict
		shows   []string
	}{
		"committed": {func(*cluster, migration.ID) {}, migration.Commit, []string{
			"one verdict: COMMIT at index", "alpha held redis from", "digest d1", "first instruction on beta", "alpha had ended its part by",
		}},
		"aborted": {func(c *cluster, id migration.ID) {
			must(c.any().AbortMigration(c.t.Context(), id, "wrong host"))(c.t)
		}, migration.Abort, []string{"one verdict: ABORT at index", "by operator:ada:admin", "COMMIT was never given: beta never had leave"}},
		"reclaimed": {func(c *cluster, id migration.ID) {
			c.reaches(id, migration.Released)
			c.world.hosts["beta"].die("redis", 11)
		}, migration.Reclaim, []string{"one verdict: COMMIT at index", "a second verdict", "RECLAIM at index", "signal 11"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, cl *cluster) {
				cl.addHost("alpha")
				cl.addHost("beta")
				cl.run("redis", "alpha")
				id := cl.migrate("redis", "beta", workerapi.MoveOptions{}).ID
				c.spoil(cl, id)
				cl.finish(id)
				e := must(cl.any().Evidence(t.Context(), id))(t)
				if !e.Complete() || e.Verdict != c.verdict {
					t.Errorf("verdict %s; not known: %q, wrong: %q", e.Verdict, e.Unknown, e.Wrong)
				}
				for _, want := range c.shows {
					if !slices.ContainsFunc(e.Holds, func(l string) bool { return strings.Contains(l, want) }) {
						t.Errorf("%q is not shown by %q", want, e.Holds)
					}
				}
				for _, entry := range e.Entries {
					if entry.Term == 0 || entry.Index == 0 || entry.By == "" || entry.Owner == "" {
						t.Errorf("an entry is not whole: %+v", entry)
					}
				}
				if len(e.Replicas) != 3 || slices.ContainsFunc(e.Replicas, func(r api.Replica) bool { return r.Index < e.Entries[0].Index }) {
					t.Errorf("the coordinators have %+v", e.Replicas)
				}
			})
		})
	}
}
