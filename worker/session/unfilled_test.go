package session_test

import (
	"testing"
	"time"

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

// TestAFillingThatStandsStillEndsInTheSource: nobody is dead, and nothing else would end it. One that waits for its verdict, or goes on however
// slowly, is let be.
func TestAFillingThatStandsStillEndsInTheSource(t *testing.T) {
	p := newPair(t)
	p.still = 300 * time.Millisecond
	p.restart("beta")
	p.opts.Fill = workerapi.FillRunning
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	p.world.Before("beta:filled", func() { <-never })
	p.upTo(migration.Released)
	<-time.After(3 * p.still) // it goes on
	if st := p.state(p.target); !st.Alive || st.Filling == nil {
		t.Fatalf("a filling that goes on: %+v", st)
	}
	p.world.Fail("beta:beat", errBroken)
	p.until(p.target, func(st workerapi.SessionState) bool { return !st.Alive && st.ExitSignal != 0 })
	p.reclaimed()
}
