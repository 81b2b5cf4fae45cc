// Package track finds the pages of a running tree that may have changed since the last look.
package track

import (
	"context"
	"time"

	"drover/engine/image"
)

// Tracker looks at one running tree, round after round. It never stops the tree for longer than microseconds and never
// changes it. It may report a page that did not change; the final dump compares every page, so that a page it misses costs
// time in the freeze, never a wrong byte. A Tracker is used by one goroutine at a time.
type Tracker interface {
	// Name is "hash", "softdirty" or "wp".
	Name() string
	// Round hands every page that may have changed since the previous Round (all, in the first) to emit, in runs of at most 256
	// pages; data is valid only during the call. Processes that came or went meanwhile are followed. It stops at emit's first
	// error and returns it.
	Round(ctx context.Context, emit func(s image.Space, addr uint64, data []byte) error) (RoundStats, error)
	// Parent is the directory of the last round's images for engine.DumpRequest.Parent, or "" if the tracker makes none.
	Parent() string
	// Close leaves no trace in the tree.
	Close() error
}

// RoundStats are a round's figures.
type RoundStats struct {
	Tracker   string        `json:"tracker"`
	Scanned   uint64        `json:"scanned"`   // pages looked at
	Emitted   uint64        `json:"emitted"`   // pages handed over
	Processes int           `json:"processes"` // of the tree, at the end of the round
	Took      time.Duration `json:"took_ns"`
}
