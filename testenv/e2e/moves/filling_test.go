package moves

import (
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/testenv/host/hosttest"
	"drover/worker/session/rules"
)

// heavy is a tree whose memory takes a while to fill in.
var heavy = shape{processes: 2, threads: 2, pages: 20000, pause: 5 * time.Millisecond}

// TestATreeThatIsStillFilledIn lets a tree run whose memory is not all in place, for what fills it was stopped as soon as it had vouched for it,
// and sees that its source is held, whoever dies, until all is there, and brought back when that will never be.
func TestATreeThatIsStillFilledIn(t *testing.T) {
	a := newArena(t, []string{"ceres"}, heavy)
	draws := draw(t)
	for _, c := range []struct {
		what string
		who  party // is killed on the target; "" is nobody
		ends ending
	}{
		{"nobody dies", "", there},
		{"the target's worker dies and comes back", theWorker, there},
		{"the target's keeper dies", theKeeper, there},
		{"what fills it dies", theFiller, here},
		{"what fills it stays as it is, neither dead nor alive", "", here},
	} {
		tr := &trial{
			arena: a, point: point{at: boundary{role: dst, op: rules.WriteHeld}, who: theFiller, role: dst, what: stopped, ends: c.ends},
			args: []string{"--bandwidth", "0", "--compression", "s2", "--max-rounds", "1"},
		}
		tr.meanwhile = func(tr *trial, over <-chan struct{}) {
			tr.isFilledIn()
			switch {
			case c.who != "":
				repair, err := tr.strike(point{who: c.who, role: dst, what: killed})
				tr.complain(err)
				if err == nil {
					repair()
				}
			case c.ends == here:
				<-over
			}
		}
		if !tr.sub(t, c.what, draws) {
			t.FailNow()
		}
	}
	a.end(t, spare)
}

// isFilledIn returns when the record says that the tree runs and its memory is being filled in.
func (c *trial) isFilledIn() {
	c.t.Helper()
	<-c.begun
	hosttest.Eventually(c.t, "the migration says that memory is being filled in", func() bool {
		var m api.Migration
		return c.JSON(c.t.Context(), &m, "show", "migration/"+string(c.id)) == nil && strings.Contains(m.Reason, "filling in")
	})
}
