package moves

import (
	"context"
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
)

// instant is a point of a move at which something can be done to it.
type instant string

const (
	copying instant = "in COPYING"                // the first round is on its way
	frozen  instant = "right after the freeze"    // the record says FROZEN, and the source has done it
	held    instant = "while both are held"       // nobody can decide: the coordinators hang until it is done
	decided instant = "after COMMIT"              // the record says so
	running instant = "in the target's probation" // the record says RELEASED
)

// slow stretches a move of a small tree so that each of its instants lasts: the copy takes seconds and so does the final pass.
var slow = []string{"--bandwidth", "3MB", "--compression", "none", "--max-rounds", "1", "--probation", "2s"}

// scene is one move of a service to which something happens.
type scene struct {
	*ground
	t              *testing.T
	service        *service
	source, target *cluster.Member
	epoch          migration.Epoch
	id             migration.ID            // once it has begun
	logs           map[*cluster.Member]int // how long each worker's log was at the beginning
	at             instant
	happens        func(*scene)
	happened       bool
	hangUp         context.CancelFunc  // ends the operator's command
	then           func(api.Migration) // hears of every later change
}

// move moves the service from its host to the other and lets it happen on the way.
func (g *ground) move(t *testing.T, s *service, at instant, happens func(*scene), args ...string) (api.Migration, error) {
	t.Helper()
	w, err := g.Workload(t.Context(), s.name)
	if err != nil {
		t.Fatal(err)
	}
	sc := &scene{ground: g, t: t, service: s, source: g.worker(t, w.Owner), target: g.other(t, w.Owner), epoch: w.Epoch,
		logs: map[*cluster.Member]int{}, at: at, happens: happens, then: func(api.Migration) {}}
	for _, m := range g.Workers {
		sc.logs[m] = len(m.Daemon.Log())
	}
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Patience)
	defer cancel()
	sc.hangUp = cancel
	m, err := g.Migrate(ctx, sc.see, s.name, sc.target.Name, append(append([]string{}, slow...), args...)...)
	if !sc.happened {
		t.Fatalf("the move was over (%s) before anything could happen %s: %v", m.Phase, at, err)
	}
	return m, err
}

// see looks at each change of the migration for the instant.
func (sc *scene) see(m api.Migration) {
	sc.id = m.ID
	if sc.happened {
		sc.then(m)
		return
	}
	switch sc.at {
	case copying:
		sc.happened = m.Phase == migration.Copying && m.Progress.PagesSent > 0
	case frozen, held:
		if sc.happened = m.Phase == migration.Frozen; sc.happened {
			sc.says(sc.source, "step=frozen")
		}
	case decided:
		sc.happened = m.Phase.Verdict() == migration.Commit
	case running:
		sc.happened = m.Phase == migration.Released
	}
	switch {
	case sc.happened && sc.at == held:
		sc.whileUndecided(func() { sc.happens(sc) })
	case sc.happened:
		sc.happens(sc)
	}
}

// whileUndecided does something while both trees are held and no coordinator moves.
func (sc *scene) whileUndecided(do func()) {
	ctx := context.WithoutCancel(sc.t.Context())
	for _, c := range sc.Coordinators {
		if err := c.Pause(ctx); err != nil {
			sc.t.Error(err)
		}
	}
	defer func() {
		for _, c := range sc.Coordinators {
			if err := c.Resume(ctx); err != nil {
				sc.t.Error(err)
			}
		}
	}()
	sc.says(sc.target, "step=held")
	sc.says(sc.source, "step=staged")
	if strings.Contains(sc.said(sc.target), "verdict=commit") {
		sc.t.Error("it was decided before anything could happen")
	}
	do()
}

// says returns once the worker has written that into its log since the move began.
func (sc *scene) says(m *cluster.Member, word string) {
	hosttest.Eventually(sc.t, m.Name+" says "+word, func() bool { return strings.Contains(sc.said(m), word) })
}

func (sc *scene) said(m *cluster.Member) string { return m.Daemon.Log()[sc.logs[m]:] }

// restart kills a daemon and starts it again.
func (sc *scene) restart(m *cluster.Member) {
	if err := m.Restart(sc.t.Context()); err != nil {
		sc.t.Error(err)
	}
}

// kill ends processes of a host as kill -9 does: those whose command line matches a pattern as pgrep -f has it.
func (sc *scene) kill(m *cluster.Member, pattern string) {
	sc.signal(m, "-9", pattern)
}

func (sc *scene) signal(m *cluster.Member, signal, pattern string) {
	pids := strings.Fields(hosttest.Run(sc.t, m.Host, "pgrep", "-f", pattern))
	hosttest.Run(sc.t, m.Host, append([]string{"kill", signal}, pids...)...)
}
