package session

import (
	"testing"
	"time"
)

func TestOnlyTimeInWhichItWasLookedCountsAsStillness(t *testing.T) {
	const beat, unknown = 7, 0
	now := time.Now()
	for _, c := range []struct {
		what  string
		looks []uint64
		every time.Duration
		want  time.Duration
	}{
		{"the first look", []uint64{beat}, lookRunning, 0},
		{"no beat", []uint64{beat, beat, beat}, lookRunning, 2 * lookRunning},
		{"a beat now and then", []uint64{beat, beat, beat + 1, beat + 1}, lookRunning, lookRunning},
		{"a filler that says nothing of it", []uint64{unknown, unknown, unknown}, time.Hour, 0},
		{"a host that was suspended between two looks", []uint64{beat, beat}, time.Hour, 2 * lookRunning},
	} {
		var s stillness
		var got time.Duration
		at := now
		for _, beats := range c.looks {
			at = at.Add(c.every)
			got = s.look(beats, at)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}
