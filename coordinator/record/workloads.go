package record

import (
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
)

// WorkloadAdd names a new workload and gives it to a host, at an epoch that no workload of its name has had. The host is told to start it afterwards.
type WorkloadAdd struct {
	Spec  workload.Spec `json:"spec"`
	Owner string        `json:"owner"`
}

func (WorkloadAdd) kind() Type        { return TypeWorkloadAdd }
func (a WorkloadAdd) subject() string { return a.Spec.Name }

func (a WorkloadAdd) apply(s *State, c meta) error {
	if err := workload.ValidName("workload", a.Spec.Name); err != nil {
		return err
	}
	if w, ok := s.Workloads[a.Spec.Name]; ok {
		return conflict("a workload called %s exists already, on %s", w.Name, w.Owner).WithNext("choose another name, or drover rm %s", w.Name)
	}
	if _, ok := s.Hosts[a.Owner]; !ok {
		return unknown("host", a.Owner)
	}
	s.Workloads[a.Spec.Name] = Workload{Name: a.Spec.Name, Spec: a.Spec, Owner: a.Owner, Epoch: s.Retired + 1, Life: Starting, Created: c.time, Since: c.time}
	return nil
}

// WorkloadRaise gives a workload that does not live to a host, at a new epoch, so that it can be restored there from images, or
// the tree continued that a migration left there.
type WorkloadRaise struct {
	Name  string          `json:"name"`
	Epoch migration.Epoch `json:"epoch"` // as the proposer saw it
	Owner string          `json:"owner"`
}

func (WorkloadRaise) kind() Type        { return TypeWorkloadRaise }
func (r WorkloadRaise) subject() string { return r.Name }

func (r WorkloadRaise) apply(s *State, c meta) error {
	w, err := s.idle(r.Name, r.Epoch)
	if err != nil {
		return err
	}
	if w.Life == Started {
		return conflict("%s lives on %s", w.Name, w.Owner).WithNext("drover stop %s", w.Name)
	}
	if w.Life == Starting && w.Owner != r.Owner {
		return conflict("%s may live on %s: whether it started there is not known", w.Name, w.Owner).WithNext("drover rm --force %s", w.Name)
	}
	if _, ok := s.Hosts[r.Owner]; !ok {
		return unknown("host", r.Owner)
	}
	w.Owner, w.Epoch, w.Life, w.Since = r.Owner, w.Epoch+1, Starting, c.time
	s.Workloads[w.Name] = w
	return nil
}

// WorkloadStarted says that the owner runs it.
type WorkloadStarted struct {
	Name  string          `json:"name"`
	Epoch migration.Epoch `json:"epoch"`
	Spec  *workload.Spec  `json:"spec,omitempty"` // as found in the images, if it was restored
}

func (WorkloadStarted) kind() Type        { return TypeWorkloadStarted }
func (r WorkloadStarted) subject() string { return r.Name }

func (r WorkloadStarted) apply(s *State, c meta) error {
	w, err := s.at(r.Name, r.Epoch)
	if err != nil {
		return err
	}
	if r.Spec != nil {
		if r.Spec.Name != w.Name {
			return errs.New(errs.Invalid, "the spec of %s is named %q", w.Name, r.Spec.Name)
		}
		w.Spec = *r.Spec
	}
	w.Life, w.Since, w.ExitCode, w.Signal, w.ExitedAt = Started, c.time, nil, 0, time.Time{}
	s.Workloads[w.Name] = w
	return nil
}

// WorkloadExited says that the tree has ended on its owner.
type WorkloadExited struct {
	Name   string          `json:"name"`
	Epoch  migration.Epoch `json:"epoch"`
	Code   *int            `json:"code,omitempty"`
	Signal int             `json:"signal,omitempty"`
	At     time.Time       `json:"at"`
}

func (WorkloadExited) kind() Type        { return TypeWorkloadExited }
func (r WorkloadExited) subject() string { return r.Name }

func (r WorkloadExited) apply(s *State, c meta) error {
	w, err := s.idle(r.Name, r.Epoch)
	if err != nil {
		return err
	}
	w.Life, w.Since, w.ExitCode, w.Signal, w.ExitedAt = Exited, c.time, r.Code, r.Signal, r.At
	s.Workloads[w.Name] = w
	return nil
}

// WorkloadRemove forgets a workload.
type WorkloadRemove struct {
	Name  string          `json:"name"`
	Epoch migration.Epoch `json:"epoch"`
}

func (WorkloadRemove) kind() Type        { return TypeWorkloadRemove }
func (r WorkloadRemove) subject() string { return r.Name }

func (r WorkloadRemove) apply(s *State, _ meta) error {
	w, err := s.idle(r.Name, r.Epoch)
	if err != nil {
		return err
	}
	s.Retired = max(s.Retired, w.Epoch)
	delete(s.Workloads, w.Name)
	return nil
}

// at is the workload, if it is at that epoch.
func (s *State) at(name string, epoch migration.Epoch) (Workload, error) {
	w, ok := s.Workloads[name]
	if !ok {
		return w, unknown("workload", name)
	}
	if w.Epoch != epoch {
		return w, conflict("%s is at epoch %d, not %d", name, w.Epoch, epoch)
	}
	return w, nil
}

// idle is the workload, if it is at that epoch and not being migrated.
func (s *State) idle(name string, epoch migration.Epoch) (Workload, error) {
	w, err := s.at(name, epoch)
	if err == nil && w.Migration != "" {
		err = conflict("%s is being migrated, by %s", name, w.Migration).WithNext("wait for it, or drover abort %s", w.Migration)
	}
	return w, err
}
