package drive

import (
	"fmt"
	"time"

	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// hopeless says why an undecided migration cannot go on, and what to do about it; "" if it can.
func (v *View) hopeless() (reason, mend string) {
	m := v.Migration
	if !v.Now.Before(m.Deadline) {
		return fmt.Sprintf("the deadline passed while it was %s", m.Phase), "give it more time with --deadline, or less to move"
	}
	if at := v.freezeEnds(); !at.IsZero() && !v.Now.Before(at) {
		return fmt.Sprintf("the cut-over took longer than %s", freezeLimit(m)), "see that the hosts reach each other, or allow more with --freeze-deadline"
	}
	for _, s := range []Side{v.Source, v.Target} {
		switch {
		case s.Removed:
			return fmt.Sprintf("host %s was removed", s.Host), ""
		case s.Rebooted:
			return fmt.Sprintf("host %s has rebooted", s.Host), ""
		case s.Refused != nil:
			return s.Refused.Error(), errs.NextOf(s.Refused)
		case s.step() == workerapi.StepFailed:
			return fmt.Sprintf("%s: %s", s.Host, s.Session.Error), s.Session.Next
		case s.step() == workerapi.StepUndone || s.step() == workerapi.StepDone:
			return fmt.Sprintf("host %s has ended its session", s.Host), ""
		case s.Absent && m.Phase != migration.Admitted:
			return fmt.Sprintf("host %s has lost its session", s.Host), ""
		case !s.Lost.IsZero() && v.Now.Sub(s.Lost) >= patience(m.Phase):
			return fmt.Sprintf("host %s has not answered for %s: %v", s.Host, patience(m.Phase), s.Trouble), "see that its worker runs and can be reached"
		}
	}
	if v.Source.Session.SendsNoMore && v.Target.Known && rank[v.Target.step()] < rank[workerapi.StepStaged] {
		return fmt.Sprintf("the worker of %s was restarted before %s had all", m.Source, m.Target), "migrate again"
	}
	src, dst := v.Source.Session.Digest, v.Target.Session.Digest
	if v.Target.step() == workerapi.StepHeld && src != "" && dst != "" && src != dst {
		return fmt.Sprintf("the image on %s is not the one that %s sent: digest %s, not %s", m.Target, m.Source, dst, src), ""
	}
	return "", ""
}

// freezeLimit is how long after the freeze a verdict must be there, else it is ABORT.
func freezeLimit(m record.Migration) time.Duration {
	if asked := m.Options.FreezeDeadline; asked > 0 {
		return asked
	}
	return max(leastFreezeLimit, 10*m.Predicted)
}

// freezeEnds is when a cut-over has taken too long, zero if it cannot have. All is done that may take long once the target is held; and
// a leader that comes late asks how things stand before it gives up what may be complete.
func (v *View) freezeEnds() time.Time {
	frozen := v.Migration.Entered(migration.Frozen)
	switch {
	case frozen.IsZero() || v.Target.step() == workerapi.StepHeld:
		return time.Time{}
	case !v.Source.Known || !v.Target.Known:
		return frozen.Add(freezeLimit(v.Migration) + patienceFrozen)
	}
	return frozen.Add(freezeLimit(v.Migration))
}

// wakeForPatience makes sure that hopeless is asked again when it can next change by time alone.
func (v *View) wakeForPatience() []Action {
	m := v.Migration
	at := m.Deadline
	earlier := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if end := v.freezeEnds(); !end.IsZero() {
		earlier(end)
	}
	for _, s := range []Side{v.Source, v.Target} {
		if !s.Lost.IsZero() {
			earlier(s.Lost.Add(patience(m.Phase)))
		}
	}
	return []Action{{Do: Wake, At: at}}
}

func patience(p migration.Phase) time.Duration {
	if p == migration.Admitted || p == migration.Copying {
		return patienceCopying
	}
	return patienceFrozen
}

// targetDead is the proof that no code of the tree runs on the target or ever will, "" without one. That the target does not
// answer is none. A tree that ended by itself is none either: it has done its work, and the source would do it again.
func (v *View) targetDead() string {
	t, host := v.Target, v.Migration.Target
	switch {
	case t.Rebooted:
		return fmt.Sprintf("host %s has rebooted", host)
	case !t.Known || t.Absent:
		return ""
	case t.Session.NeverRan:
		return fmt.Sprintf("the tree never ran on %s: %s", host, t.Session.Error)
	case (t.step() == workerapi.StepReleased || t.step() == workerapi.StepFailed) && !t.Session.Alive && t.Session.ExitSignal != 0:
		return fmt.Sprintf("the tree was ended on %s by signal %d", host, t.Session.ExitSignal)
	}
	return ""
}
