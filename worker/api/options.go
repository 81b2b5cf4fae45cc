package api

import (
	"slices"
	"strings"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
)

// Unlimited is MoveOptions.Bandwidth for who wants no limit whatever the policy says.
const Unlimited = -1

// MaxThrottle is the most that may be taken of a tree's time, in percent: with less left a program may take itself for dead.
const MaxThrottle = 80

// MoveOptions are what the user may choose for a migration. Zero values and nil ask for the policy's default or drover's.
type MoveOptions struct {
	Policy           migration.Policy     `json:"policy,omitempty"`             // default migration.Fast
	FinalState       migration.FinalState `json:"final_state,omitempty"`        // target: running (default) or stopped
	SourceFinalState migration.FinalState `json:"source_final_state,omitempty"` // source: dead (default) or stopped
	MaxRounds        int                  `json:"max_rounds,omitempty"`         // 1..64; the final dump is not a round
	Downtime         time.Duration        `json:"downtime_ns,omitempty"`        // cut over when the predicted blackout is within it; default migration.DefaultDowntime
	DowntimeStrict   *bool                `json:"downtime_strict,omitempty"`    // fail instead of cutting over when it cannot be met
	Patience         *time.Duration       `json:"patience_ns,omitempty"`        // how long to wait for a quiet moment once rounds have done what they can
	Throttle         *int                 `json:"throttle,omitempty"`           // percent, 0..MaxThrottle, of the tree's time that may be taken
	Tracker          string               `json:"tracker,omitempty"`            // "", "wp", "softdirty", "hash"
	Compression      string               `json:"compression,omitempty"`        // "", "none", "s2", "zstd"
	Fill             string               `json:"fill,omitempty"`               // FillHeld, FillRunning; "" is what the memory's size suggests
	Bandwidth        int64                `json:"bandwidth,omitempty"`          // bytes a second on the wire; Unlimited
	Probation        time.Duration        `json:"probation_ns,omitempty"`       // default migration.DefaultProbation
	Deadline         time.Duration        `json:"deadline_ns,omitempty"`        // for the whole migration up to the verdict; default migration.DefaultDeadline
	FreezeDeadline   time.Duration        `json:"freeze_deadline_ns,omitempty"` // from the freeze to the verdict; default by the blackout that is expected
}

// bearing is what a policy stands for.
type bearing struct {
	strict    bool
	patience  time.Duration
	throttle  int
	rounds    int
	bandwidth int64
}

var bearings = map[migration.Policy]bearing{
	// A quarter of a gigabit is little on today's links, and a GiB still moves within a minute.
	migration.Gentle:   {strict: true, patience: 30 * time.Second, rounds: 8, bandwidth: 32e6},
	migration.Fast:     {rounds: 8, bandwidth: Unlimited},
	migration.MustMove: {patience: 5 * time.Second, throttle: MaxThrottle, rounds: 16, bandwidth: Unlimited},
}

// Resolved is o with all that it leaves to its policy filled in. It is what a migration's record keeps; resolving it again
// changes nothing.
func (o MoveOptions) Resolved() MoveOptions {
	if o.Policy == "" {
		o.Policy = migration.Fast
	}
	b := bearings[o.Policy]
	if o.DowntimeStrict == nil {
		o.DowntimeStrict = &b.strict
	}
	if o.Patience == nil {
		o.Patience = &b.patience
	}
	if o.Throttle == nil {
		o.Throttle = &b.throttle
	}
	if o.MaxRounds == 0 {
		o.MaxRounds = b.rounds
	}
	if o.Bandwidth == 0 {
		o.Bandwidth = b.bandwidth
	}
	if o.Downtime == 0 {
		o.Downtime = migration.DefaultDowntime
	}
	return o
}

// Choices of an option; the empty one is the default.
var (
	trackers     = []string{"", "wp", "softdirty", "hash"}
	compressions = []string{"", "none", "s2", "zstd"}
	fills        = []string{"", FillHeld, FillRunning}
)

// When a target's memory is filled in.
const (
	FillHeld    = "held"    // before the verdict: the tree then waits for no page
	FillRunning = "running" // also while the tree runs: it waits for the pages that it asks for, and the blackout does not grow with memory
)

// Check says what is impossible about o, by the flag's name.
func (o MoveOptions) Check() error {
	if _, err := o.FinalState.Resolve(migration.OpRestore); err != nil {
		return err
	}
	if _, err := o.SourceFinalState.Resolve(migration.OpMigrationDump); err != nil {
		return err
	}
	bad := func(what string, have any, want string) error {
		return errs.New(errs.Invalid, "--%s %v makes no sense", what, have).WithNext("%s", want)
	}
	if _, known := bearings[o.Policy]; !known && o.Policy != "" {
		return bad("policy", o.Policy, "choose gentle, fast or must-move")
	}
	r := o.Resolved()
	switch {
	case r.MaxRounds < 1 || r.MaxRounds > 64:
		return bad("max-rounds", o.MaxRounds, "choose 1 to 64")
	case r.Downtime < 0 || r.Downtime > migration.MaxDowntime:
		return bad("downtime", o.Downtime, "choose a time above 0 and up to an hour")
	case *r.Patience < 0 || *r.Patience > time.Hour:
		return bad("patience", *r.Patience, "choose a time up to an hour")
	case *r.Throttle < 0 || *r.Throttle > MaxThrottle:
		return bad("throttle", *r.Throttle, "choose 0 to 80 percent")
	case !slices.Contains(trackers, o.Tracker):
		return bad("tracker", o.Tracker, "choose one of "+strings.Join(trackers[1:], ", "))
	case !slices.Contains(compressions, o.Compression):
		return bad("compression", o.Compression, "choose one of "+strings.Join(compressions[1:], ", "))
	case !slices.Contains(fills, o.Fill):
		return bad("fill", o.Fill, "choose one of "+strings.Join(fills[1:], ", "))
	case o.Bandwidth < Unlimited:
		return bad("bandwidth", o.Bandwidth, "choose bytes a second, or -1 for no limit")
	case o.Probation < 0 || o.Probation > migration.MaxProbation:
		return bad("probation", o.Probation, "choose a time up to an hour")
	case o.Deadline < 0 || o.Deadline > migration.MaxDeadline:
		return bad("deadline", o.Deadline, "choose a time up to a week")
	case o.FreezeDeadline != 0 && o.FreezeDeadline < r.Downtime || o.FreezeDeadline > 24*time.Hour:
		return bad("freeze-deadline", o.FreezeDeadline, "choose a time of at least --downtime and at most a day")
	}
	return nil
}
