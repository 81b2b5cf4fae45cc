package main

import (
	"sync/atomic"
	"time"
	"unsafe"

	"drover/testenv/victims/vital"
)

// table is the shared memory: each page holds a ball that parent and child hit in turn. A ball at 2n waits for the parent's n+1st
// stroke, one at 2n+1 for the child's answer.
type table struct {
	memory []byte
	rounds uint64
	faults uint64
	gap    vital.Gap
}

func (t *table) balls() int { return len(t.memory) / vital.PageSize }

func (t *table) ball(i int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&t.memory[i*vital.PageSize]))
}

// Report is what the parent says.
type Report struct {
	Rounds     uint64  `json:"rounds"` // strokes that were answered, on all pages together
	Pages      int     `json:"pages"`
	Faults     uint64  `json:"faults"`
	LongestGap float64 `json:"longest_gap_ms"`
}

func (t *table) report() Report {
	return Report{Rounds: t.rounds, Pages: t.balls(), Faults: t.faults, LongestGap: t.gap.LongestMS()}
}

// patience is how long the parent waits for an answer before the child counts as lost. It outlasts any freeze, because a freeze
// stops both.
const patience = 10 * time.Second

// serve plays the parent's part, page by page.
func (t *table) serve(lasts time.Duration, say vital.Every) error {
	ctx, stop := vital.Until(lasts)
	defer stop()
	for stroke := uint64(0); ; stroke++ {
		for i := range t.balls() {
			if ctx.Err() != nil {
				return nil
			}
			if !t.ball(i).CompareAndSwap(2*stroke, 2*stroke+1) {
				t.faults++
				t.ball(i).Store(2*stroke + 1)
			}
			for waits := 0; t.ball(i).Load() != 2*stroke+2; waits++ {
				if waits > int(patience/pause) {
					t.faults++
					break
				}
				time.Sleep(pause)
			}
			t.rounds++
			t.gap.Beat()
			say.Do(func() { vital.Say(t.report()) })
		}
	}
}

// pause is between two looks at a ball.
const pause = 50 * time.Microsecond

// answer plays the child's part until it is killed. The parent hits one ball after the other, so it looks at one after the other.
func (t *table) answer() error {
	for stroke := uint64(0); ; stroke++ {
		for i := range t.balls() {
			for !t.ball(i).CompareAndSwap(2*stroke+1, 2*stroke+2) {
				time.Sleep(pause)
			}
		}
	}
}
