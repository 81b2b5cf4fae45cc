package api

import (
	"time"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// PlanSpec is what `drover apply` sends.
type PlanSpec struct {
	Name       string        `json:"name"`
	Migrations []PlanItem    `json:"migrations"` // 1..10,000; done in this order as limits allow
	Parallel   int           `json:"parallel"`   // at once in all; default 4
	PerSource  int           `json:"per_source"` // default 2
	PerTarget  int           `json:"per_target"` // default 2
	OnFailure  string        `json:"on_failure"` // "continue" (default), "stop", "move-back"
	StartAt    time.Time     `json:"start_at,omitzero"`
	Cron       string        `json:"cron,omitempty"`        // starts again at each tick; five fields, UTC
	Deadline   time.Duration `json:"deadline_ns,omitempty"` // from its start; nothing new begins after it
	// Drain is set on plans that empty a host; their items are found when the plan starts and again as long as any remain.
	Drain string `json:"drain,omitempty"`
	// DrainOptions are those of every move of a drain.
	DrainOptions workerapi.MoveOptions `json:"drain_options,omitzero"`
}

// PlanItem is one wanted move.
type PlanItem struct {
	Workload string                `json:"workload"`
	To       string                `json:"to"` // a host, or "anywhere"
	Options  workerapi.MoveOptions `json:"options"`
}

// PlanState is a plan's state.
type PlanState string

const (
	PlanScheduled  PlanState = "scheduled"
	PlanRunning    PlanState = "running"
	PlanPaused     PlanState = "paused"
	PlanCancelled  PlanState = "cancelled"
	PlanMovingBack PlanState = "moving-back"
	PlanDone       PlanState = "done"
	PlanFailed     PlanState = "failed" // ended, and something did not move
)

// Plan is a plan as the record has it.
type Plan struct {
	Spec    PlanSpec     `json:"spec"`
	State   PlanState    `json:"state"`
	By      string       `json:"by,omitempty"`
	Created time.Time    `json:"created"`
	Started time.Time    `json:"started,omitzero"`
	Ended   time.Time    `json:"ended,omitzero"`
	NextRun time.Time    `json:"next_run,omitzero"`
	Items   []PlanResult `json:"items"`
}

// PlanResult is how one item stands.
type PlanResult struct {
	PlanItem
	From      string       `json:"from,omitempty"`
	State     string       `json:"state"` // "waiting", "moving", "moved", "failed", "skipped", "moved-back"
	Migration migration.ID `json:"migration,omitempty"`
	Reason    string       `json:"reason,omitempty"`
}

// DrainRequest empties a host.
type DrainRequest struct {
	Host        string                `json:"host"`
	Deadline    time.Duration         `json:"deadline_ns,omitempty"`
	MaxParallel int                   `json:"max_parallel,omitempty"`
	DryRun      bool                  `json:"dry_run,omitempty"`
	At          time.Time             `json:"at,omitzero"`
	Cron        string                `json:"cron,omitempty"`
	Options     workerapi.MoveOptions `json:"options"`
}

// DrainReport is what a drain will do; Plan is "" for a dry run.
type DrainReport struct {
	Host  string       `json:"host"`
	Plan  string       `json:"plan,omitempty"`
	Items []PlanResult `json:"items"` // state "waiting" with a target in To, or "skipped" with the reason it cannot move
}
