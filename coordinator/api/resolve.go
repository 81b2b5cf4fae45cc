package api

import (
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
)

// Decision is what a person says of a host that a migration waits for and that cannot speak for itself.
type Decision string

const (
	TargetIsDead  Decision = "target-is-dead"  // nothing of the tree runs there or ever will: it is fenced
	TargetIsAlive Decision = "target-is-alive" // the tree runs there: somebody has looked
	SourceIsDead  Decision = "source-is-dead"  // it will not come back
)

// Decisions are all there are.
var Decisions = []Decision{TargetIsDead, TargetIsAlive, SourceIsDead}

// About is the host that the decision is about.
func (d Decision) About() migration.Role {
	if d == SourceIsDead {
		return migration.Source
	}
	return migration.Target
}

// Situation is what a migration waits for, and what a person may decide about it.
type Situation struct {
	Migration migration.ID      `json:"migration"`
	Workload  string            `json:"workload"`
	Source    string            `json:"source"`
	Target    string            `json:"target"`
	Epoch     migration.Epoch   `json:"epoch"` // the workload's now
	Owner     string            `json:"owner"`
	Phase     migration.Phase   `json:"phase"`
	Verdict   migration.Verdict `json:"verdict,omitempty"`
	Waiting   string            `json:"waiting,omitempty"`
	Answers   []Answer          `json:"answers"` // of both hosts, asked just now
	Choices   []Choice          `json:"choices"` // none if nobody is needed
	Because   []string          `json:"because"` // why this and no other can be decided
}

// Choice is one thing that a person may decide.
type Choice struct {
	Decision Decision `json:"decision"`
	Host     string   `json:"host"`  // that the decider vouches for
	First    string   `json:"first"` // what must be done before
	Then     string   `json:"then"`  // what follows from it
}

// ResolveRequest decides.
type ResolveRequest struct {
	Decision Decision `json:"decision"`
	Vouch    string   `json:"vouch"`  // the host's name: the decider's word that what Choice.First asks for is done
	Reason   string   `json:"reason"` // 1 to MaxReason bytes
}

// MaxReason bounds why something was decided, in bytes.
const MaxReason = 500

// Check says what of the request makes no sense whatever the situation.
func (r ResolveRequest) Check() error {
	switch {
	case r.Decision != TargetIsDead && r.Decision != TargetIsAlive && r.Decision != SourceIsDead:
		return errs.New(errs.Invalid, "%q is nothing that can be decided", r.Decision).WithNext("choose one of %v", Decisions)
	case r.Vouch == "":
		return errs.New(errs.Invalid, "nobody vouches for the host that the decision is about").WithNext("name it")
	case r.Reason == "":
		return errs.New(errs.Invalid, "a decision needs a reason: it stays in the record")
	case len(r.Reason) > MaxReason:
		return errs.New(errs.Invalid, "a reason of %d bytes is too long: at most %d", len(r.Reason), MaxReason)
	}
	return nil
}

// Resolution is a decision as the record has it.
type Resolution struct {
	Decision Decision        `json:"decision"`
	Host     string          `json:"host"` // vouched for
	By       string          `json:"by"`
	Reason   string          `json:"reason"`
	Phase    migration.Phase `json:"phase"` // before it
	Time     time.Time       `json:"time"`
	Index    uint64          `json:"index"`
	Term     uint64          `json:"term,omitempty"`
	Answers  []Answer        `json:"answers,omitempty"` // of both hosts, asked just before
}
