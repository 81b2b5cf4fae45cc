package session_test

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/migration"
	"drover/worker/pace"
)

// lowered says whether all threads of this process have that nice value (true) or none has (false).
func lowered(t *testing.T, value int) bool {
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Error(err)
	}
	low, others := 0, 0
	for _, thread := range all {
		id, _ := strconv.Atoi(thread.Name())
		switch raw, err := unix.Getpriority(unix.PRIO_PROCESS, id); {
		case err != nil: // it has ended
		case 20-raw == value: // the system call's own answer
			low++
		default:
			others++
		}
	}
	if low > 0 && others > 0 {
		t.Errorf("%d threads have nice value %d and %d others have not", low, value, others)
	}
	return low > 0
}

// TestCopyingGivesWayAndACutOverDoesNot: while rounds are made the worker's priority is low; once a tree stands still it is not, on either host.
func TestCopyingGivesWayAndACutOverDoesNot(t *testing.T) {
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	value := min(20-own+6, pace.MostNice) // below its own, whatever that is
	p := newPair(t)
	if p.nice, err = pace.NewNice(value); err != nil {
		t.Fatal(err)
	}
	p.restart("alpha")
	p.restart("beta")
	copied := false
	p.world.Before("alpha:carry", func() { copied = copied || lowered(t, value) })
	for _, step := range []string{"alpha:dump", "alpha:fence", "beta:restore", "beta:hold-commit"} {
		p.world.Before(step, func() {
			if lowered(t, value) {
				t.Errorf("the priority is low at %s", step)
			}
		})
	}
	p.upTo(migration.Done)
	p.livesOnlyOn("beta")
	if !copied {
		t.Error("it was never low")
	}
	if lowered(t, value) {
		t.Error("it stays low")
	}
}
