package safety

import (
	"fmt"
	"strings"

	"drover/internal/migration"
)

// Copy is one copy of a workload's tree as it was seen at one instant.
type Copy struct {
	Host string
	Runs bool // user code of it runs
	// Whole says that it could run with all that it had: nothing of its memory, files and connections is missing or gone.
	Whole bool
}

// OneRuns holds if at most one copy of a workload runs user code at any instant.
func OneRuns(copies []Copy) error {
	if on := running(copies); len(on) > 1 {
		return fmt.Errorf("two copies run: on %s", strings.Join(on, " and on "))
	}
	return nil
}

// OwnerRuns holds if user code runs on no host but the workload's owner by the record.
func OwnerRuns(copies []Copy, owner string) error {
	for _, c := range copies {
		if c.Runs && c.Host != owner {
			return fmt.Errorf("a copy runs on %s, the workload is %s's", c.Host, owner)
		}
	}
	return nil
}

// Kept holds if a workload that was alive is alive, held, or recoverable. before and now are its copies before and after something that drover did;
// what a host's death or the tree's own end takes is not drover's doing.
func Kept(before, now []Copy) error {
	if whole(before) && !whole(now) {
		return fmt.Errorf("the last whole copy was ended")
	}
	return nil
}

// Settled holds if, once all that was broken has been mended and every migration has ended, the one copy there is runs on its owner, and nothing is held.
func Settled(copies []Copy, owner string) error {
	if err := OneRuns(copies); err != nil {
		return err
	}
	if err := OwnerRuns(copies, owner); err != nil {
		return err
	}
	for _, c := range copies {
		if !c.Runs {
			return fmt.Errorf("a copy is held on %s, and no migration will end it", c.Host)
		}
		if !c.Whole {
			return fmt.Errorf("the copy that runs on %s is not whole", c.Host)
		}
	}
	if len(copies) == 0 {
		return fmt.Errorf("no copy is left")
	}
	return nil
}

// VerdictStands holds if a verdict never changes, but that a Reclaim may follow a Commit.
func VerdictStands(was, is migration.Verdict) error {
	if was == is || was == migration.Undecided || was == migration.Commit && is == migration.Reclaim {
		return nil
	}
	return fmt.Errorf("the verdict was %q and is %q", was, is)
}

// EpochRises holds if epochs only rise, and ownership changes with them alone.
func EpochRises(wasOwner string, was migration.Epoch, owner string, is migration.Epoch) error {
	switch {
	case is < was:
		return fmt.Errorf("the epoch fell from %d to %d", was, is)
	case owner != wasOwner && is == was:
		return fmt.Errorf("it went from %s to %s within epoch %d", wasOwner, owner, is)
	}
	return nil
}

// NotOlder holds if nobody acts on an older epoch than the newest that it has seen.
func NotOlder(acts, seen migration.Epoch) error {
	if acts < seen {
		return fmt.Errorf("it acts at epoch %d and has seen %d", acts, seen)
	}
	return nil
}

// HeldFirst holds if a migration is committed only once its target holds a complete copy.
func HeldFirst(held bool) error {
	if !held {
		return fmt.Errorf("it was committed before its target held a copy")
	}
	return nil
}

// SourceKept holds if a committed migration's source is ended only after probation, which is over only when the target's memory is all in place.
func SourceKept(probationOver, filled bool) error {
	switch {
	case !probationOver:
		return fmt.Errorf("the source was ended before probation was over")
	case !filled:
		return fmt.Errorf("probation ended while memory was being filled in")
	}
	return nil
}

func running(copies []Copy) (on []string) {
	for _, c := range copies {
		if c.Runs {
			on = append(on, c.Host)
		}
	}
	return on
}

func whole(copies []Copy) bool {
	for _, c := range copies {
		if c.Whole {
			return true
		}
	}
	return false
}
