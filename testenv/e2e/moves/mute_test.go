package moves

import (
	"strings"
	"testing"

	"drover/testenv/host/hosttest"
	"drover/worker/session/rules"
)

// TestAWorkerComesBackWhileAKeeperIsStopped kills the worker of a host on which a keeper is stopped in the middle of a move. The one that takes its
// place is up without it, says what it waits for, decides nothing, and goes on when the keeper does.
func TestAWorkerComesBackWhileAKeeperIsStopped(t *testing.T) {
	a := newArena(t, []string{"ceres"}, pair)
	draws := draw(t)
	for _, c := range []struct {
		what string
		at   boundary
		ends ending
	}{
		{"a source that is undoing an abort", undoing(src, rules.WriteVerdict)[0], here},
		{"a source that is held through probation", boundary{role: src, op: rules.WriteVerdict}, there},
		{"a target that is about to release", boundary{role: dst, op: rules.WriteVerdict}, there},
	} {
		tr := &trial{arena: a, point: point{at: c.at, who: theKeeper, role: c.at.role, what: stopped, ends: c.ends}, args: []string{"--probation", "2s"}}
		tr.meanwhile = func(tr *trial, _ <-chan struct{}) {
			m := tr.side(c.at.role)
			before := len(m.Daemon.Log())
			restart, err := tr.strike(point{who: theWorker, role: c.at.role, what: killed})
			tr.complain(err)
			if err != nil {
				return
			}
			restart()
			hosttest.Eventually(tr.t, "the worker's log says what it waits for", func() bool {
				log := m.Daemon.Log()
				return len(log) > before && strings.Contains(log[before:], "a migration cannot be taken up yet") && strings.Contains(log[before:], "SIGCONT")
			})
			hosttest.Eventually(tr.t, "the migration says what it waits for", func() bool {
				said, _ := tr.Drover(tr.t.Context(), "show", "migration/"+string(tr.id))
				return strings.Contains(said, "SIGCONT") || strings.Contains(said, "has not answered since COMMIT")
			})
			if c.ends == here {
				hosttest.Eventually(tr.t, "the workload says what it waits for", func() bool {
					said, _ := tr.Drover(tr.t.Context(), "show", struckTree)
					return strings.Contains(said, "trouble") && strings.Contains(said, "SIGCONT")
				})
			}
		}
		if !tr.sub(t, c.what, draws) {
			t.FailNow()
		}
	}
	a.end(t, spare)
}
