package moves

import (
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/testenv/host/hosttest"
)

// heavy is a tree whose memory takes a while to fill in.
var heavy = shape{processes: 2, threads: 2, pages: 20000, pause: 5 * time.Millisecond}

// TestATreeThatIsStillFilledIn lets a tree run whose memory is not all in place, stops what fills it, and sees that its source is
// held, whoever dies, until all is there, and brought back when that will never be.
func TestATreeThatIsStillFilledIn(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	s := g.start(t, "heavy", "alpha", 0, heavy)
	goOn := func(sc *scene) { sc.signal(sc.target, "-CONT", filler) }
	for _, c := range []struct {
		what string
		do   func(*scene)
		ends outcome
	}{
		{"nobody dies", goOn, atTarget},
		{"the target's worker dies and comes back", func(sc *scene) { targetWorkerDies(sc); goOn(sc) }, atTarget},
		{"the target's keeper dies", func(sc *scene) { sc.kill(sc.target, keeper); goOn(sc) }, atTarget},
		{"what fills it dies", func(sc *scene) { sc.kill(sc.target, filler) }, atSource},
		{"what fills it stays as it is, neither dead nor alive", func(*scene) {}, atSource},
	} {
		ok := t.Run(c.what, func(t *testing.T) {
			s.stopFilling(t)
			m, err := g.move(t, s, running, func(sc *scene) {
				hosttest.Eventually(t, "the migration says that memory is being filled in", func() bool {
					var m api.Migration
					return g.JSON(t.Context(), &m, "show", "migration/"+string(sc.id)) == nil && strings.Contains(m.Reason, "filling in")
				})
				c.do(sc)
			}, "--bandwidth", "0", "--compression", "s2", "--fill", "running", "--probation", "100ms")
			g.mend(t)
			if c.ends == atSource { // it was killed with its connections
				g.outcome(t, m.ID)
				s.dial(t)
			}
			s.hasEnded(t, m.ID, c.ends)
			if t.Failed() {
				t.Logf("the move said last: %s, %s: %v", m.Phase, m.Reason, err)
			}
		})
		if !ok {
			t.FailNow()
		}
	}
	s.end(t)
	g.nothingLeft(t, spare)
}

// stopFilling stops what fills the tree's memory on the host that it moves to next, as soon as that has vouched for it.
func (s *service) stopFilling(t *testing.T) {
	t.Helper()
	w, err := s.ground.Workload(t.Context(), s.name)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is started between seeing it and stopping it: the filling takes a third of a second.
	hosttest.Start(t, s.ground.other(t, w.Owner).Host, "stopper", "sh", "-c", `
		until pid=$(pgrep -f "$1"); do :; done
		while :; do
			line=
			read -r line 2>/dev/null <"$2"
			case $line in *'"all":0'*) ;; *'"over":false'*) break ;; esac
		done
		kill -STOP $pid`, "sh", filler, "/run/drover/keepers/"+s.name+"/filling.json")
}
