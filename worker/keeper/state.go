package keeper

import (
	"os"
	"time"

	"drover/internal/errs"
	"drover/worker/stat"
)

// State is what a keeper knows of its tree. It is written to the keeper's directory whenever it changes.
type State struct {
	Pid   int    `json:"pid"` // of the tree's root as the host sees it, 0 if there is no tree yet
	Birth uint64 `json:"birth"`
	// Exited says that the root has ended; Known that the keeper saw how.
	Exited bool      `json:"exited"`
	Known  bool      `json:"known"`
	Code   int       `json:"code"`
	Signal int       `json:"signal"`
	At     time.Time `json:"at,omitzero"`
}

// ReadState reads what the keeper of that directory last wrote, living or dead; the zero State if it never had a tree.
func ReadState(dir Dir) (State, error) {
	var s State
	err := readJSON(dir.state(), &s)
	if os.IsNotExist(err) {
		return State{}, nil
	}
	return s, err
}

// Birth is the start time of a process in clock ticks since boot, and whether it is a zombie.
func Birth(pid int) (birth uint64, zombie bool, err error) {
	p, err := stat.Read(pid)
	if err != nil {
		return 0, false, errs.New(errs.NotFound, "there is no process %d: %w", pid, err)
	}
	return p.Birth, p.Zombie(), nil
}
