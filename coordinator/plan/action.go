package plan

import (
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
)

// Action is one thing to do: Start, Mark, SetState, Cordon or Abort.
type Action interface{ action() }

// Start begins the move of an item. When it is admitted the item is recorded as Item with the migration's id.
type Start struct {
	Index int
	Was   string // the item's state so far
	To    string // the host to move it to; moving back it is Item.From
	Item  api.PlanResult
}

// Mark records how an item stands. An index one beyond the last adds it; Was is "" then.
type Mark struct {
	Index int
	Was   string
	Item  api.PlanResult
}

// SetState carries the plan from one state to another; nil Items stay as they are. It is the last action of its Next.
type SetState struct {
	From, To api.PlanState
	NextRun  time.Time
	Items    []api.PlanResult
}

// Cordon keeps new workloads off a host that is being drained.
type Cordon struct{ Host string }

// Abort asks for the verdict Abort on a migration of a cancelled plan.
type Abort struct {
	Migration migration.ID
	Reason    string
}

func (Start) action()    {}
func (Mark) action()     {}
func (SetState) action() {}
func (Cordon) action()   {}
func (Abort) action()    {}

// The states of an item, as they stand in the record.
const (
	waiting   = "waiting"
	moving    = "moving"
	moved     = "moved"
	failed    = "failed"
	skipped   = "skipped"
	movedBack = "moved-back"
)
