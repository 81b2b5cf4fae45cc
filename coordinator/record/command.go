package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover/internal/errs"
)

// Type names a command. Names are append-only: the log of a running cluster holds all that ever were.
type Type string

const (
	TypeFound           Type = "found"
	TypeMemberJoin      Type = "member-join"
	TypeMemberRemove    Type = "member-remove"
	TypeHostJoin        Type = "host-join"
	TypeHostAddress     Type = "host-address"
	TypeHostCordon      Type = "host-cordon"
	TypeHostRemove      Type = "host-remove"
	TypeHostBandwidth   Type = "host-bandwidth"
	TypeTokenNew        Type = "token-new"
	TypeOperatorSet     Type = "operator-set"
	TypeKeyAdd          Type = "key-add"
	TypeKeySwitch       Type = "key-switch"
	TypeKeyRetire       Type = "key-retire"
	TypeWorkloadAdd     Type = "workload-add"
	TypeWorkloadRaise   Type = "workload-raise"
	TypeWorkloadStarted Type = "workload-started"
	TypeWorkloadExited  Type = "workload-exited"
	TypeWorkloadRemove  Type = "workload-remove"
	TypeAdmit           Type = "admit"
	TypeStep            Type = "step"
	TypeBandwidth       Type = "bandwidth"
	TypeNote            Type = "note"
	TypeResolve         Type = "resolve"
	TypePlanPut         Type = "plan-put"
	TypePlanItems       Type = "plan-items"
	TypePlanState       Type = "plan-state"
	TypePlanRemove      Type = "plan-remove"
)

// Command is one entry of the log.
type Command struct {
	Type Type            `json:"type"`
	ID   string          `json:"id"`   // unique; a command that comes twice acts once
	Time time.Time       `json:"time"` // the proposer's clock
	By   string          `json:"by,omitempty"`
	Data json.RawMessage `json:"data"`
	// Term is the log's own, of the entry that carries the command: who applies it sets it.
	Term uint64 `json:"-"`
}

// Change is what a command carries: one of the types below.
type Change interface {
	kind() Type
	// subject is what the audit trail says it was about.
	subject() string
	// apply checks everything, then changes s; an error means that nothing was changed.
	apply(s *State, c meta) error
}

// meta is what of its command a change may use.
type meta struct {
	index, term uint64
	time        time.Time
	by          string
}

// ErrUnknownType is a command that this version of drover does not know. A state machine that met one must stop: to go on
// would make its record differ from the others'.
var ErrUnknownType = errors.New("this coordinator is too old for the record")

// decoders knows every type of command.
var decoders = map[Type]func(json.RawMessage) (Change, error){
	TypeFound:           decode[Found],
	TypeMemberJoin:      decode[MemberJoin],
	TypeMemberRemove:    decode[MemberRemove],
	TypeHostJoin:        decode[HostJoin],
	TypeHostAddress:     decode[HostAddress],
	TypeHostCordon:      decode[HostCordon],
	TypeHostRemove:      decode[HostRemove],
	TypeTokenNew:        decode[TokenNew],
	TypeOperatorSet:     decode[OperatorSet],
	TypeKeyAdd:          decode[KeyAdd],
	TypeKeySwitch:       decode[KeySwitch],
	TypeKeyRetire:       decode[KeyRetire],
	TypeWorkloadAdd:     decode[WorkloadAdd],
	TypeWorkloadRaise:   decode[WorkloadRaise],
	TypeWorkloadStarted: decode[WorkloadStarted],
	TypeWorkloadExited:  decode[WorkloadExited],
	TypeWorkloadRemove:  decode[WorkloadRemove],
	TypeAdmit:           decode[Admit],
	TypeStep:            decode[Step],
	TypeBandwidth:       decode[Bandwidth],
	TypeHostBandwidth:   decode[HostBandwidth],
	TypeNote:            decode[Note],
	TypeResolve:         decode[Resolve],
	TypePlanPut:         decode[PlanPut],
	TypePlanItems:       decode[PlanItems],
	TypePlanState:       decode[PlanState],
	TypePlanRemove:      decode[PlanRemove],
}

func decode[T Change](data json.RawMessage) (Change, error) {
	var c T
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, errs.New(errs.Invalid, "decode command: %w", err)
	}
	return c, nil
}

// NewCommand wraps a change for the log. The id must be unique and the time is the caller's clock.
func NewCommand(id string, at time.Time, by string, change Change) (Command, error) {
	data, err := json.Marshal(change)
	if err != nil {
		return Command{}, errs.New(errs.Invalid, "encode %s: %w", change.kind(), err)
	}
	return Command{Type: change.kind(), ID: id, Time: at.UTC(), By: by, Data: data}, nil
}

// Apply applies the command that stands at index in the log. It either changes the record or returns an error, never both; a
// command whose id has been applied already changes nothing and succeeds.
func (s *State) Apply(index uint64, c Command) error {
	dec, ok := decoders[c.Type]
	if !ok {
		return fmt.Errorf("command %q at index %d: %w", c.Type, index, ErrUnknownType)
	}
	if c.ID != "" && slices.Contains(s.Applied, c.ID) {
		return nil
	}
	change, err := dec(c.Data)
	if err != nil {
		return err
	}
	if err := change.apply(s, meta{index: index, term: c.Term, time: c.Time, by: c.By}); err != nil {
		return err
	}
	s.Index = index
	s.Applied = ring(s.Applied, c.ID, maxApplied)
	s.Audit = ring(s.Audit, Entry{Index: index, Time: c.Time, By: c.By, What: c.Type, On: change.subject()}, maxAudit)
	return nil
}

// ring appends v and drops the oldest beyond limit, without changing what earlier views of list see.
func ring[T any](list []T, v T, limit int) []T {
	if len(list) >= limit {
		list = slices.Clone(list[len(list)-limit+1:])
	}
	return append(list, v)
}

func conflict(format string, args ...any) *errs.Error {
	return errs.New(errs.Conflict, format, args...)
}
func unknown(what, name string) *errs.Error {
	return errs.New(errs.NotFound, "no %s is called %q", what, name).WithNext("drover %ss lists them", what)
}
