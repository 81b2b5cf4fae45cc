package drive

import (
	"time"

	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// View is all that the next actions follow from.
type View struct {
	Migration record.Migration
	Epoch     migration.Epoch // the workload's now
	Source    Side
	Target    Side
	Now       time.Time
}

// Side is what is known of one host's part.
type Side struct {
	Host    string
	Known   bool // Session is what the host said last; false until it has said anything to this driver
	Session workerapi.SessionState
	Seen    time.Time // when it was last said
	Asked   time.Time // when the newest question was put that it has answered: what is said may have been long on its way
	Absent  bool      // the host answers and has no such session
	CutOver bool      // source: it has been told to freeze, and has agreed
	Limited *int64    // source: the limit that it has been told, nil before it was
	// FrozenAt and ReleasedAt are when the tree stopped on the source and ran on the target, by this coordinator's clock.
	FrozenAt   time.Time
	ReleasedAt time.Time
	Refused    error     // an answer that trying again will not change
	Lost       time.Time // since when the host has not answered; zero if it does
	Trouble    error     // why the last call failed, nil if it did not
	Boot       string    // boot id that the host said last, "" if it has said none to this leader
	Removed    bool      // the host is no longer in the record: whoever removed it said that it will not come back
	Fenced     bool      // somebody has vouched that the host is dead, and the record has it
	Rebooted   bool      // the host has booted since admission: no tree of then lives there
}

// Refresh brings the view up to the record at time now; false if the migration is not in it. boot is the boot id that a host last said,
// "" if it has said nothing.
func (v *View) Refresh(s *record.State, id migration.ID, boot func(host string) string, now time.Time) (known bool) {
	if v.Migration, known = s.Migrations[id]; !known {
		return false
	}
	m := v.Migration
	v.Epoch, v.Now = s.Workloads[m.Workload].Epoch, now
	for _, role := range []migration.Role{migration.Source, migration.Target} {
		side, host := v.side(role), m.Host(role)
		_, in := s.Hosts[host]
		said := boot(host)
		side.Host, side.Removed, side.Boot = host, !in, said
		side.Fenced, side.Rebooted = m.Fenced(role), m.Rebooted(role, said)
	}
	return true
}

// side is the side of that role.
func (v *View) side(r migration.Role) *Side {
	if r == migration.Source {
		return &v.Source
	}
	return &v.Target
}

// rank orders a session's steps: what a host says may come twice and out of order, but a session never goes back.
var rank = map[workerapi.Step]int{
	workerapi.StepOpen: 1, workerapi.StepReady: 2, workerapi.StepFrozen: 3, workerapi.StepStaged: 4, workerapi.StepHeld: 5,
	workerapi.StepReleased: 6, workerapi.StepFailed: 7, workerapi.StepUndone: 8, workerapi.StepDone: 8,
}

// Answered takes in what came of an action on a host: a state, or nothing but that it was done, or why it failed. of is the host that
// the answer is about.
func (v *View) Answered(a Action, of migration.Role, st *workerapi.SessionState, err error, now time.Time) {
	s := v.side(of)
	if a.Do == Look && (err == nil || errs.KindOf(err) == errs.NotFound) && a.At.After(s.Asked) {
		s.Asked = a.At
	}
	if err != nil {
		s.fail(err, now)
		if (a.Do == Open || a.Do == CutOver) && s.Lost.IsZero() {
			s.Refused = errs.New(errs.KindOf(err), "%s on %s: %w", a.Do, s.Host, err)
		}
		return
	}
	switch a.Do {
	case CutOver:
		s.CutOver = true
	case Limit:
		s.Limited = &a.Limit
	}
	if st != nil {
		s.Hear(*st, now)
	}
}

// Hear takes in what the host says of its session at time now. A stale word changes no step.
func (s *Side) Hear(st workerapi.SessionState, now time.Time) {
	s.Lost, s.Trouble, s.Absent, s.Seen = time.Time{}, nil, false, now
	if s.Known && rank[st.Step] < rank[s.Session.Step] {
		// A source whose worker has restarted is back at frozen, whatever it had sent; that it knows the verdict counts.
		if s.Session.Verdict == migration.Undecided {
			s.Session.Verdict = st.Verdict
		}
		return
	}
	if old := s.Session; s.Known && old.Step == st.Step && old.ExitSignal != 0 { // a dead tree stays dead
		st.Alive, st.ExitSignal = false, old.ExitSignal
	}
	s.Known, s.Session = true, st
	if s.FrozenAt.IsZero() && st.Role == migration.Source && rank[st.Step] >= rank[workerapi.StepFrozen] && st.FrozenFor > 0 {
		s.FrozenAt = now.Add(-st.FrozenFor)
	}
	if s.ReleasedAt.IsZero() && st.Role == migration.Target && st.Step == workerapi.StepReleased {
		s.ReleasedAt = now
	}
}

// fail takes in that a call to the host failed.
func (s *Side) fail(err error, now time.Time) {
	s.Trouble = err
	switch errs.KindOf(err) {
	case errs.Unavailable, errs.Timeout:
		if s.Lost.IsZero() {
			s.Lost = now
		}
	case errs.NotFound:
		s.Lost, s.Absent, s.Seen = time.Time{}, true, now
	default: // it answers, but of its session it has said nothing
		s.Lost = time.Time{}
	}
}

// step is the session's step, "" if nothing is known of it.
func (s *Side) step() workerapi.Step {
	if !s.Known || s.Absent {
		return ""
	}
	return s.Session.Step
}

// undone says whether nothing is left to undo on the host.
func (s *Side) undone() bool {
	return s.Removed || s.Fenced || s.Absent || s.step() == workerapi.StepUndone
}

// ended says whether the host has ended its part of a committed migration.
func (s *Side) ended() bool {
	return s.Removed || s.Fenced || s.Absent || s.step() == workerapi.StepDone
}
