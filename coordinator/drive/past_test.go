package drive

import (
	"fmt"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

func TestASourceHearsOfTheLastMovesOnItsWay(t *testing.T) {
	s := &record.State{Migrations: map[migration.ID]record.Migration{}}
	put := func(n int, source, target string, own, link, blackout time.Duration) {
		id := migration.ID(fmt.Sprintf("m%d", n))
		s.Migrations[id] = record.Migration{
			ID: id, Source: source, Target: target, Blackout: blackout, Expected: workerapi.Expected{Way: "watched", Own: own, Link: link},
			Transitions: []api.Transition{{Index: uint64(n)}},
		}
	}
	for n := 1; n <= 40; n++ {
		put(n, "a", "b", 100*time.Millisecond, 20*time.Millisecond, time.Duration(n+20)*time.Millisecond)
	}
	put(41, "b", "a", 100, 20, 30)
	put(42, "a", "c", 100, 20, 30)
	put(43, "a", "b", 100, 20, 0) // rolled back
	put(44, "a", "b", 0, 0, 50)   // by a version that did not say
	past := Past(s, "a", "b")
	if len(past) != mostPast || past[0].Took != 40*time.Millisecond || past[1].Took != 39*time.Millisecond || past[0].Own != 100*time.Millisecond {
		t.Errorf("%d moves, %+v first", len(past), past[:min(2, len(past))])
	}
}
