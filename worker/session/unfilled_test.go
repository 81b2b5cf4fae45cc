package session_test

import (
	"testing"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// While a released tree whose memory will never come is being killed, nothing may say that the source can go.
func TestTheSourceIsNeededUntilAnUnfilledTreeIsDead(t *testing.T) {
	p := newPair(t)
	p.opts.Fill = workerapi.FillRunning
	going, killing, killed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	p.world.Before("beta:filled", func() { <-going })
	p.world.Fail("beta:filled", errBroken)
	first := true
	p.world.Before("beta:kill", func() {
		if first {
			first = false
			close(killing)
			<-killed
		}
	})
	p.upTo(migration.Released)
	close(going)
	<-killing
	st := p.state(p.target)
	if st.Filling == nil && st.Alive {
		t.Error("a coordinator past probation would end the source now")
	}
	close(killed)
	p.until(p.target, func(st workerapi.SessionState) bool { return !st.Alive && st.ExitSignal != 0 })
	p.reclaimed()
}
