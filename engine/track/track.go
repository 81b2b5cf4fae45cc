package track

import (
	"context"
	"time"

	"drover/engine/image"
)

// Tracker looks at one running tree, round after round. It never stops the tree for longer than microseconds and never
// changes it. It may report a page that did not change. What was written while a round reads is in the next round; what a final
// dump may leave out because a round had it, only an Exact tracker says. A Tracker is used by one goroutine at a time.
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

// Exact is a Tracker that can tell what its rounds are worth once the tree stands still. What a round has found, the next hands over
// again, because a device or another process may have been writing to it just then; what the last round has found counts as changed. So
// the fewer pages the last round finds, the fewer are left.
type Exact interface {
	Tracker
	// Changed says which pages the tree, which is frozen, has changed since the last Round looked at them. The caller keeps every
	// thread of it from running (cgroup.freeze, or CRIU's stop, from query-ext-files on) from before the call until it
	// has read what changed. It changes nothing and may be called again; if the tree runs on, further rounds are as if it had not
	// been called. It costs some milliseconds a GiB. After an error nothing may be taken to be the same; before the first Round nothing is.
	Changed(ctx context.Context) (*Changes, error)
}

// RoundStats are a round's figures.
type RoundStats struct {
	Tracker   string        `json:"tracker"`            // "hash", if all of wp's processes had to be hashed
	Scanned   uint64        `json:"scanned"`            // pages looked at
	Emitted   uint64        `json:"emitted"`            // pages handed over
	Again     uint64        `json:"again,omitempty"`    // handed over besides, a second time: see Exact
	Processes int           `json:"processes"`          // of the tree, at the end of the round
	Mappings  uint64        `json:"mappings,omitempty"` // that they have; 0 if that is not known
	Took      time.Duration `json:"took_ns"`
	// Stopped is the longest that a thread of the tree stood still for the tracker itself, without what an engine's pre-dump stops.
	Stopped time.Duration `json:"stopped_ns,omitempty"`
	// Gone are the spaces of processes that rounds before have read and that are no more: nobody needs their pages. softdirty does not say.
	Gone []image.Space `json:"-"`
	// Fallback says which tracker failed and which processes are hashed instead of watched, and why, for people; "" if none.
	Fallback string `json:"fallback,omitempty"`
}
