package lazy

import (
	"iter"
	"runtime"
	"sync/atomic"
	"testing"
)

// stuck is memory that gives nothing once it is shut, as a disk that hangs.
type stuck struct {
	Memory
	calls   atomic.Int32
	hangs   chan struct{} // has one for everybody who waits
	resumes chan struct{}
}

func (m *stuck) Runs(pid, from, to uint64) iter.Seq[Run] {
	if m.calls.Add(1) > 2 { // the first looks whether all is there
		m.hangs <- struct{}{}
		<-m.resumes
	}
	return m.Memory.Runs(pid, from, to)
}

func TestAFillingStandsStillWhenPagesAreWantedAndNoneComes(t *testing.T) {
	m := &stuck{hangs: make(chan struct{}, 64), resumes: make(chan struct{})}
	b := bedWith(t, 200, func(b *bed) Memory {
		b.fillMemory()
		m.Memory = b.memory
		return m
	})
	stands := func(want bool, when string) {
		t.Helper()
		b.filler.Stands() // from now on
		if b.filler.Stands() != want {
			t.Errorf("%s it stands still: %t", when, !want)
		}
	}
	stands(false, "before the restore has come")
	b.ready()
	stands(false, "before it is to fill")
	filled := make(chan error, 1)
	go func() {
		_, err := b.fill()
		filled <- err
	}()
	<-m.hangs
	for !b.filler.Stands() { // another goroutine may still put a chunk in place
		runtime.Gosched()
	}
	stands(true, "while no page comes")
	close(m.resumes)
	must(t, <-filled)
	stands(false, "when all is in place")
}
