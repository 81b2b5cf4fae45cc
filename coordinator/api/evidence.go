package api

import (
	"cmp"
	"time"

	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Answer is what a host had said of its part in a migration when an entry of the log was proposed.
type Answer struct {
	Host  string         `json:"host"`
	Role  migration.Role `json:"role"`
	Heard time.Time      `json:"heard,omitzero"` // the proposer's clock; zero if the host had said nothing to it
	Boot  string         `json:"boot,omitempty"` // boot id that the host had given, "" if it had given none to this leader
	// Silent is since when it had not answered, zero if it did; Removed says that the host was no longer in the record, Absent that
	// it knew no such session.
	Silent  time.Time `json:"silent,omitzero"`
	Removed bool      `json:"removed,omitempty"`
	Absent  bool      `json:"absent,omitempty"`

	Step       workerapi.Step    `json:"step,omitempty"`
	Verdict    migration.Verdict `json:"verdict,omitempty"` // that the host knew
	Digest     string            `json:"digest,omitempty"`
	FrozenAt   time.Time         `json:"frozen_at,omitzero"`   // source: its clock when the tree was frozen
	ReleasedAt time.Time         `json:"released_at,omitzero"` // target: its clock when the tree's first instruction could run
	Alive      bool              `json:"alive,omitempty"`      // target: the released tree ran
	ExitSignal int               `json:"exit_signal,omitempty"`
	NeverRan   bool              `json:"never_ran,omitempty"`
	Error      string            `json:"error,omitempty"` // at most MaxAnswerError bytes
}

// Take takes in what the host says of its session. What went wrong before stays said.
func (a *Answer) Take(st workerapi.SessionState) {
	a.Step, a.Verdict, a.Digest, a.FrozenAt, a.ReleasedAt = st.Step, st.Verdict, st.Digest, st.FrozenAt, st.ReleasedAt
	a.Alive, a.ExitSignal, a.NeverRan, a.Error = st.Alive, st.ExitSignal, st.NeverRan, cmp.Or(a.Error, st.Error)
}

// Bounds of what an entry keeps of answers.
const (
	MaxAnswers     = 2
	MaxAnswerError = 200
)

// Evidence is what the record holds on one migration, in the order of the log, and what follows from it.
type Evidence struct {
	Migration  migration.ID      `json:"migration"`
	Workload   string            `json:"workload"`
	Source     string            `json:"source"`
	Target     string            `json:"target"`
	SourceBoot string            `json:"source_boot,omitempty"` // boot ids at admission
	TargetBoot string            `json:"target_boot,omitempty"`
	By         string            `json:"by,omitempty"` // who asked for it
	Epoch      migration.Epoch   `json:"epoch"`        // at admission
	Phase      migration.Phase   `json:"phase"`
	Verdict    migration.Verdict `json:"verdict,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Waiting    string            `json:"waiting,omitempty"` // for what, if it does
	Entries    []Transition      `json:"entries"`
	Replicas   []Replica         `json:"replicas"`

	HeldFrom time.Time     `json:"held_from,omitzero"` // the source's clock: its tree did not run from then on
	HeldLast time.Time     `json:"held_last,omitzero"` // the leader's clock: the source said last that it held it
	EndedBy  time.Time     `json:"ended_by,omitzero"`  // the leader's clock: by then the source had ended it
	Released time.Time     `json:"released,omitzero"`  // the target's clock: the tree's first instruction there
	Blackout time.Duration `json:"blackout_ns,omitempty"`

	Holds   []string `json:"holds"`   // what is shown, in words
	Unknown []string `json:"unknown"` // what is not
	Wrong   []string `json:"wrong"`   // what must not be: a fault of drover's
	Over    bool     `json:"over"`    // the migration has ended
}

// Complete says whether all is known of a migration that has ended, and nothing of it is wrong.
func (e Evidence) Complete() bool { return e.Over && len(e.Unknown) == 0 && len(e.Wrong) == 0 }

// Replica is a coordinator that has the record, or should.
type Replica struct {
	Name  string `json:"name"`
	Index uint64 `json:"index,omitempty"` // that it has applied, 0 if it does not answer
}
