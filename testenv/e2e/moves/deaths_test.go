package moves

import (
	"encoding/json"
	"testing"

	"drover/coordinator/api"
	"drover/internal/migration"
)

// outcome is what a move ends in: where the tree lives then.
type outcome bool

const (
	atTarget outcome = true
	atSource outcome = false
)

// deaths are what can die on the way, when, and what has to come of it.
var deaths = []struct {
	what string
	at   instant
	dies func(*scene)
	ends outcome
}{
	{"the leader dies", copying, leaderDies, atTarget},
	{"the leader dies", frozen, leaderDies, atTarget},
	{"the leader dies", decided, leaderDies, atTarget},
	{"a majority of the coordinators dies and comes back", copying, majorityDies, atTarget},
	{"a majority of the coordinators dies and comes back", frozen, majorityDies, atTarget},
	{"a majority of the coordinators dies and comes back", decided, majorityDies, atTarget},
	{"the source's worker dies and comes back", copying, sourceWorkerDies, atSource},
	{"the source's worker dies and comes back", held, sourceWorkerDies, atTarget},
	{"the source's worker dies and comes back", decided, sourceWorkerDies, atTarget},
	{"the source's worker dies and comes back", running, sourceWorkerDies, atTarget},
	{"the target's worker dies and comes back", copying, targetWorkerDies, atSource},
	{"the target's worker dies and comes back", held, targetWorkerDies, atTarget},
	{"the target's worker dies and comes back", decided, targetWorkerDies, atTarget},
	{"the target's worker dies and comes back", running, targetWorkerDies, atTarget},
	{"the source's keeper dies", held, func(sc *scene) { sc.kill(sc.source, keeper) }, atTarget},
	{"the target's keeper dies", held, func(sc *scene) { sc.kill(sc.target, keeper) }, atSource},
	{"the source's CRIU dies", held, func(sc *scene) { sc.kill(sc.source, criu) }, atTarget},
	{"the target's CRIU dies", held, func(sc *scene) { sc.kill(sc.target, criu) }, atSource},
	{"what fills the target's memory dies", copying, func(sc *scene) { sc.kill(sc.target, filler) }, atSource},
	{"the source's keeper dies, and the target's CRIU", held, func(sc *scene) { sc.kill(sc.source, keeper); sc.kill(sc.target, criu) }, atSource},
	{"the source's CRIU and keeper die, and the target's CRIU", held, nobodyHolds, atSource},
	{"the source's CRIU, keeper and worker die, and the target's CRIU", held, func(sc *scene) { nobodyHolds(sc); sourceWorkerDies(sc) }, atSource},
	{"CRIU dies on both sides", held, func(sc *scene) { sc.kill(sc.source, criu); sc.kill(sc.target, criu) }, atSource},
	{"the operator's command dies", copying, func(sc *scene) { sc.hangUp() }, atTarget},
}

// spare is how many more descriptors a daemon may have after somebody died: another leads, and is connected to everybody.
const spare = 12

// Command lines, as pgrep -f looks for them.
const (
	keeper = "^drover keeper run"
	filler = "^drover keeper fill"
	criu   = "^(criu: |/usr/sbin/criu swrk)" // it has a title of its own once it has a request
)

func leaderDies(sc *scene) {
	if err := sc.leader(sc.t).Daemon.Kill(sc.t.Context()); err != nil {
		sc.t.Error(err)
	}
}

// majorityDies ends the leader and another one before either is started again.
func majorityDies(sc *scene) {
	leader := sc.leader(sc.t)
	other := sc.Coordinators[0]
	if other == leader {
		other = sc.Coordinators[1]
	}
	if err := other.Daemon.Kill(sc.t.Context()); err != nil {
		sc.t.Error(err)
	}
	sc.restart(leader)
	sc.restart(other)
}

func sourceWorkerDies(sc *scene) { sc.restart(sc.source) }
func targetWorkerDies(sc *scene) { sc.restart(sc.target) }

// nobodyHolds leaves of the source's hold only what its cgroup keeps: CRIU, which would undo its work if the keeper died first, dies before it.
func nobodyHolds(sc *scene) {
	sc.kill(sc.source, criu)
	sc.kill(sc.source, keeper)
	sc.kill(sc.target, criu)
}

func TestWhoeverDiesOneCopyLivesOn(t *testing.T) {
	g := newGround(t, coordinators, "alpha", "beta")
	for n, d := range deaths {
		ok := t.Run(d.what+" "+string(d.at), func(t *testing.T) {
			s := g.start(t, "survivor", "alpha", n, small)
			m, err := g.move(t, s, d.at, d.dies)
			g.mend(t)
			s.hasEnded(t, m.ID, d.ends)
			if t.Failed() {
				t.Logf("the move said last: %s, %s: %v", m.Phase, m.Reason, err)
			}
			s.end(t)
			g.nothingLeft(t, spare)
		})
		if !ok {
			t.Fatal("the cases after it would start on hosts that are not as they should be")
		}
	}
}

// hasEnded fails the test unless the migration ends as it should, with the one copy at the right place.
func (s *service) hasEnded(t *testing.T, id migration.ID, o outcome) {
	t.Helper()
	m := s.ground.outcome(t, id)
	phase, home := migration.RolledBack, m.Source
	if o == atTarget {
		phase, home = migration.Done, m.Target
	}
	if m.Phase != phase {
		t.Errorf("it ended %s: %s; want %s", m.Phase, m.Reason, phase)
	}
	s.lives(t, home)
	s.ground.proved(t, id)
}

// proved fails the test unless the evidence shows that the migration is over and broke no rule.
func (g *ground) proved(t *testing.T, id migration.ID) {
	t.Helper()
	e := g.evidence(t, id)
	if !e.Over || len(e.Wrong) > 0 {
		t.Errorf("the evidence on %s: over %t, wrong %q", id, e.Over, e.Wrong)
	}
	t.Logf("not known: %q", e.Unknown) // a worker that was restarted cannot say when the tree first ran
}

// evidence is what `drover prove` prints.
func (g *ground) evidence(t *testing.T, id migration.ID) (e api.Evidence) {
	t.Helper()
	out, _ := g.Drover(t.Context(), "prove", string(id), "--json") // the exit code says whether it is complete
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Errorf("drover prove printed %q: %v", out, err)
	}
	return e
}
