package main

import "testing"

func TestCallerSeesLossAndRepetition(t *testing.T) {
	for _, c := range []struct {
		name             string
		number, served   uint64
		lost, repetition uint64
	}{
		{"as it should be", 5, 5, 0, 0},
		{"the server has forgotten two", 5, 3, 2, 0},
		{"the server has counted one twice", 5, 6, 0, 1},
		{"an old answer again", 4, 5, 1, 0},
	} {
		var caller caller
		caller.compare(5, c.number, c.served)
		if caller.report.Lost != c.lost || caller.report.Repeated != c.repetition {
			t.Errorf("%s: %+v", c.name, caller.report)
		}
	}
}
