package sim

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// Failure is a schedule in which a rule was broken.
type Failure struct {
	Seed  uint64
	Tape  []uint16 // its choices
	Err   error
	Trace []string // what happened
}

// String is the failure as it is kept in testdata: what was broken, the tape, and what happened.
func (f *Failure) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %v (%d choices)\ntape:", f.Seed, f.Err, len(f.Tape))
	for _, v := range f.Tape {
		fmt.Fprintf(&b, " %d", v)
	}
	for _, line := range f.Trace {
		fmt.Fprintf(&b, "\n%s", line)
	}
	return b.String()
}

// Run tries schedules of the seeds from first on, on all processors, until n have been tried or one fails: the failure is then shrunk.
func Run(first uint64, n int) (*Coverage, *Failure) {
	var next atomic.Uint64
	var failed atomic.Pointer[Failure]
	total := &Coverage{}
	var mu sync.Mutex
	var all sync.WaitGroup
	const batch = 64
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			mine := &Coverage{}
			for failed.Load() == nil {
				from := next.Add(batch) - batch
				for i := from; i < min(from+batch, uint64(n)); i++ {
					if f := try(first+i, mine); f != nil {
						failed.CompareAndSwap(nil, f)
						break
					}
				}
				if from >= uint64(n) {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total.Add(mine)
		})
	}
	all.Wait()
	f := failed.Load()
	if f != nil {
		f.shrink()
	}
	return total, f
}

// try runs the schedule of a seed.
func try(seed uint64, cover *Coverage) *Failure {
	w := newWorld(bySeed(seed), cover, false)
	err := w.run()
	w.end()
	if err == nil {
		return nil
	}
	return &Failure{Seed: seed, Tape: w.tape, Err: err}
}

// Replay runs the schedule of a tape, and says what happened.
func Replay(tape []uint16) (trace []string, err error) {
	w := newWorld(byTape(tape), &Coverage{}, true)
	err = w.run()
	return w.trace, err
}
