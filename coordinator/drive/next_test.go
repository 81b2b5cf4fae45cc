package drive

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

var t0 = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// view is a migration of w from a to b in a phase that it entered at t0, of which nothing else is known yet.
func view(p migration.Phase, changes ...func(*View)) View {
	v := View{
		Migration: record.Migration{
			ID: "m", Workload: "w", Source: "a", Target: "b", Epoch: 7, Phase: p, Deadline: t0.Add(time.Hour),
			Transitions: []api.Transition{{Phase: migration.Admitted, Time: t0}, {Phase: p, Time: t0}},
		},
		Epoch: 7, Now: t0.Add(100 * time.Millisecond), Source: Side{Host: "a"}, Target: Side{Host: "b"},
	}
	switch p {
	case migration.Committed, migration.Released:
		v.Epoch = 8
	case migration.Reclaimed:
		v.Epoch = 9
	}
	for _, f := range changes {
		f(&v)
	}
	return v
}

func state(role migration.Role, s workerapi.Step) workerapi.SessionState {
	return workerapi.SessionState{Migration: "m", Workload: "w", Role: role, Step: s}
}

// source and target say where a session stands; more changes the state further.
func source(s workerapi.Step, more ...func(*workerapi.SessionState)) func(*View) {
	return func(v *View) { hear(&v.Source, state(migration.Source, s), v.Now, more) }
}
func target(s workerapi.Step, more ...func(*workerapi.SessionState)) func(*View) {
	return func(v *View) { hear(&v.Target, state(migration.Target, s), v.Now, more) }
}
func hear(side *Side, st workerapi.SessionState, now time.Time, more []func(*workerapi.SessionState)) {
	st.Alive = st.Step == workerapi.StepReleased
	for _, f := range more {
		f(&st)
	}
	side.Hear(st, now)
	side.Asked = now
}

func told(v migration.Verdict) func(*workerapi.SessionState) {
	return func(s *workerapi.SessionState) { s.Verdict = v }
}
func signal(n int) func(*workerapi.SessionState) {
	return func(s *workerapi.SessionState) { s.Alive, s.ExitSignal = false, n }
}
func digest(d string) func(*workerapi.SessionState) {
	return func(s *workerapi.SessionState) { s.Digest = d }
}
func filling(s *workerapi.SessionState)     { s.Filling = &workerapi.Filling{Done: 1, All: 2} }
func neverRan(s *workerapi.SessionState)    { s.NeverRan, s.Error = true, "criu died" }
func sendsNoMore(s *workerapi.SessionState) { s.SendsNoMore = true }
func exited(s *workerapi.SessionState)      { s.Alive = false }
func failedAs(s *workerapi.SessionState)    { s.Error, s.Next = "no memory", "buy some" }
func after(d time.Duration) func(*View)     { return func(v *View) { v.Now = t0.Add(d) } }
func probationOver(v *View)                 { v.Migration.ProbationOver = true }
func predicted(d time.Duration) func(*View) {
	return func(v *View) { v.Migration.Predicted = d }
}
func freezeDeadline(d time.Duration) func(*View) {
	return func(v *View) { v.Migration.Options.FreezeDeadline = d }
}
func limited(n int64) func(*View)   { return func(v *View) { v.Migration.Options.Bandwidth = n } }
func toldLimit(n int64) func(*View) { return func(v *View) { v.Source.Limited = &n } }
func sends(n int64) func(*workerapi.SessionState) {
	return func(s *workerapi.SessionState) { s.Progress.Bandwidth = n }
}
func cutOver(v *View)        { v.Source.CutOver = true }
func targetRebooted(v *View) { v.Target.Rebooted = true }
func sourceRemoved(v *View)  { v.Source.Removed = true }
func lost(d time.Duration) func(s *Side) {
	return func(s *Side) { s.fail(errs.New(errs.Unavailable, "gone").WithNext("mend it"), t0.Add(d)) }
}
func sourceIs(f func(*Side)) func(*View) { return func(v *View) { f(&v.Source) } }

func targetIs(f func(*Side)) func(*View) { return func(v *View) { f(&v.Target) } }
func absent(s *Side)                     { s.fail(errs.New(errs.NotFound, "no such session"), t0) }
func cannot(s *Side)                     { s.fail(errs.New(errs.Failed, "criu died"), t0) }
func refused(s *Side)                    { s.Refused = errs.New(errs.Refused, "no room").WithNext("make some") }
func seen(d time.Duration) func(s *Side) {
	return func(s *Side) { s.Seen, s.Asked = t0.Add(d), t0.Add(d) }
}

// words are actions as a reader of the table would say them, without wakes.
func words(acts []Action) string {
	var out []string
	for _, a := range acts {
		switch a.Do {
		case Wake:
			continue
		case Record:
			switch c := a.Change.(type) {
			case record.Step:
				s := fmt.Sprintf("record %s", strings.Trim(fmt.Sprint(c.Events), "[]"))
				if c.Reason != "" {
					s += " (" + c.Reason + ")"
				}
				out = append(out, s)
			case record.Note:
				if c.ProbationOver {
					out = append(out, "record probation over")
				} else {
					out = append(out, "note "+c.Note)
				}
			}
		case Decide:
			out = append(out, fmt.Sprintf("%s %s e%d", a.Role, a.Verdict, a.Epoch))
		case Limit:
			out = append(out, fmt.Sprintf("limit %s to %d", a.Role, a.Limit))
		case CutOver, Confirm, Open:
			out = append(out, fmt.Sprintf("%s %s e%d", a.Do, a.Role, a.Epoch))
		default:
			out = append(out, fmt.Sprintf("%s %s", a.Do, a.Role))
		}
	}
	return strings.Join(out, "; ")
}

func TestNext(t *testing.T) {
	const (
		open, ready, frozen, staged, held = workerapi.StepOpen, workerapi.StepReady, workerapi.StepFrozen, workerapi.StepStaged, workerapi.StepHeld
		released, done, undone, failed    = workerapi.StepReleased, workerapi.StepDone, workerapi.StepUndone, workerapi.StepFailed
	)
	for _, c := range []struct {
		why  string
		v    View
		want string
	}{
		{"the target is opened first", view(migration.Admitted), "open target e7"},
		{"then the source", view(migration.Admitted, target(open)), "open source e7"},
		{"then it begins", view(migration.Admitted, target(open), source(open)), "record begin"},
		{"a new leader asks both", view(migration.Copying), "look source; look target"},
		{"rounds go on", view(migration.Copying, target(open), source(open)), ""},
		{"its limit was changed", view(migration.Copying, target(open), source(open), limited(5e6)), "limit source to 5000000"},
		{"it has been told, and has not said so yet", view(migration.Copying, target(open), source(open), limited(5e6), toldLimit(5e6)), ""},
		{"it was changed again", view(migration.Copying, target(open), source(open), limited(workerapi.Unlimited), toldLimit(5e6)), "limit source to 0"},
		{"a source with the limit that it began with", view(migration.Copying, target(open), source(open, sends(5e6)), limited(5e6)), ""},
		{"a limit that comes too late", view(migration.Copying, target(open), source(ready), limited(5e6)), "record freeze"},
		{"the source asks to freeze", view(migration.Copying, target(open), source(ready)), "record freeze"},
		{"it may, and is told", view(migration.Frozen, target(open), source(ready)), "cut over source e7"},
		{"it has been told", view(migration.Frozen, target(open), source(ready), cutOver), ""},
		{"the target has not rebuilt", view(migration.Frozen, target(staged), source(frozen)), ""},
		{"the target is held before the source's word comes", view(migration.Frozen, target(held), source(ready), cutOver), ""},
		{"all is held: one entry up to COMMIT", view(migration.Frozen, target(held), source(frozen)), "record staged held commit"},
		{"the same from STAGED", view(migration.Staged, target(held), source(staged)), "record held commit"},
		{"the same from HELD", view(migration.Held, target(held), source(staged)), "record commit"},
		{"the digests are equal", view(migration.Held, target(held, digest("x")), source(staged, digest("x"))), "record commit"},
		{"the digests differ", view(migration.Held, target(held, digest("x")), source(staged, digest("y"))),
			"record abort (the image on b is not the one that a sent: digest x, not y)"},

		{"the deadline", view(migration.Copying, after(time.Hour), source(open), target(open)), "record abort (the deadline passed while it was COPYING)"},
		{"a cut-over that hangs", view(migration.Frozen, after(30*time.Second), source(frozen), target(open)), "record abort (the cut-over took longer than 30s)"},
		{"one that was expected to take long has more time", view(migration.Frozen, after(30*time.Second), source(frozen), target(open), predicted(4*time.Second)), ""},
		{"but not for ever", view(migration.Frozen, after(40*time.Second), source(frozen), target(open), predicted(4*time.Second)), "record abort (the cut-over took longer than 40s)"},
		{"a freeze deadline that was asked for", view(migration.Frozen, after(2*time.Second), source(frozen), target(open), freezeDeadline(2*time.Second)), "record abort (the cut-over took longer than 2s)"},
		{"it does not undo what is complete", view(migration.Frozen, after(time.Minute), source(frozen), target(held)), "record staged held commit"},
		{"a late leader asks first", view(migration.Frozen, after(31*time.Second)), "look source; look target"},
		{"and is answered by nobody", view(migration.Frozen, after(35*time.Second)), "record abort (the cut-over took longer than 30s)"},
		{"the source fails", view(migration.Copying, source(failed, failedAs), target(open)), "record abort (a: no memory)"},
		{"the target fails while held", view(migration.Held, source(frozen), target(failed, failedAs)), "record abort (b: no memory)"},
		{"the target will not open", view(migration.Admitted, targetIs(refused)), "record abort (no room)"},
		{"the target has lost its session", view(migration.Frozen, source(frozen), targetIs(absent)), "record abort (host b has lost its session)"},
		{"the target has rebooted", view(migration.Frozen, source(frozen), target(open), targetRebooted), "record abort (host b has rebooted)"},
		{"the source's worker was restarted before the target had all", view(migration.Frozen, source(frozen, sendsNoMore), target(open)),
			"record abort (the worker of a was restarted before b had all)"},
		{"after it had all", view(migration.Frozen, source(frozen, sendsNoMore), target(staged)), ""},
		{"when nobody knows yet what it has", view(migration.Frozen, source(frozen, sendsNoMore)), "look target"},
		{"the source was removed", view(migration.Copying, sourceRemoved), "record abort (host a was removed)"},
		{"a worker restarts during the copy", view(migration.Copying, source(open), target(open), targetIs(lost(0)), after(patienceCopying-1)), "look source; look target"},
		{"it does not come back", view(migration.Copying, source(open), target(open), targetIs(lost(0)), after(patienceCopying)),
			"record abort (host b has not answered for 30s: gone); look source; look target"},
		{"with a frozen tree it has less time", view(migration.Frozen, source(frozen), target(open), targetIs(lost(0)), after(patienceFrozen)),
			"record abort (host b has not answered for 5s: gone); look source; look target"},

		{"COMMIT goes to the target alone at first", view(migration.Committed, source(frozen), target(held)), "target commit e8"},
		{"a target that does not answer: the source learns too", view(migration.Committed, source(frozen), target(held), targetIs(lost(0))),
			"target commit e8; source commit e8; note b has not answered since COMMIT and may run w: the source stays held until it is known"},
		{"a new leader delivers COMMIT, and asks how the target stands", view(migration.Committed), "target commit e8; look target"},
		{"a target that will not release it", view(migration.Committed, source(frozen), targetIs(cannot)),
			"target commit e8; look target; source commit e8; note waiting for host b: criu died"},
		{"the target runs", view(migration.Committed, source(frozen), target(released)), "record released; source commit e8"},
		{"a new leader first asks since when the tree is frozen", view(migration.Committed, target(released)), "look source"},
		{"the target never ran it", view(migration.Committed, source(frozen), target(failed, neverRan)), "record reclaim (the tree never ran on b: criu died)"},
		{"the target failed, and nobody knows whether it ran", view(migration.Committed, source(frozen), target(failed)), "target commit e8"},
		{"the target has rebooted after COMMIT", view(migration.Committed, source(frozen), target(held), targetRebooted), "record reclaim (host b has rebooted)"},

		{"probation", view(migration.Released, source(frozen, told(migration.Commit)), target(released)), ""},
		{"the source has not heard of COMMIT", view(migration.Released, source(frozen), target(released)), "source commit e8"},
		{"it dies by a signal", view(migration.Released, source(frozen), target(released, signal(11))), "record reclaim (the tree was ended on b by signal 11)"},
		{"it ends by itself", view(migration.Released, source(frozen, told(migration.Commit)), target(released, exited)), ""},
		{"probation ends but nobody has looked since", view(migration.Released, after(3*time.Second), source(frozen, told(migration.Commit)), target(released), targetIs(seen(time.Second))),
			"look target; look target"},
		{"probation ends, and what came since was asked for before", view(migration.Released, after(3*time.Second), source(frozen, told(migration.Commit)), target(released),
			targetIs(func(s *Side) { s.Asked = t0.Add(time.Second) })), "look target"},
		{"probation ends and the target answers, but not how it stands", view(migration.Released, after(3*time.Second), source(frozen, told(migration.Commit)), target(released), targetIs(seen(time.Second)),
			func(v *View) { v.Target.fail(errs.New(errs.Failed, "broken"), v.Now) }), "look target; look target"},
		{"probation ends and the target is silent", view(migration.Released, after(9*time.Second), source(frozen, told(migration.Commit)), target(released), targetIs(lost(time.Second))),
			"look target; note b does not answer: the source stays held until w is known to live there"},
		{"the target has forgotten the migration", view(migration.Released, after(3*time.Second), source(frozen, told(migration.Commit)), target(released), targetIs(absent), targetIs(seen(3*time.Second))),
			"note b knows nothing of this migration; look there whether w runs: the source stays held; look target"},
		{"the target's worker is back, and its tree is not", view(migration.Released, after(3*time.Second), source(frozen, told(migration.Commit)), target(failed)),
			"note b does not say that the tree lives there: ; look there whether w runs: the source stays held; look target"},
		{"the target's memory is not all in place", view(migration.Released, after(3*time.Second), source(frozen, told(migration.Commit)), target(released, filling)),
			"note b is still filling in the memory of w: the source stays held until it has"},
		{"it dies meanwhile", view(migration.Released, after(3*time.Second), source(frozen, told(migration.Commit)), target(released, filling, signal(9))), "record reclaim (the tree was ended on b by signal 9)"},
		{"probation has passed", view(migration.Released, after(3*time.Second), source(frozen, told(migration.Commit)), target(released)), "record probation over"},
		{"then the source is ended", view(migration.Released, probationOver, source(frozen, told(migration.Commit)), target(released)), "confirm source e8"},
		{"though the target dies now", view(migration.Released, probationOver, source(frozen, told(migration.Commit)), target(released, signal(9))), "confirm source e8"},
		{"then the target's images go", view(migration.Released, probationOver, source(done, told(migration.Commit)), target(released)), "confirm target e8"},
		{"then it is over", view(migration.Released, probationOver, source(done, told(migration.Commit)), target(done)), "record confirm"},
		{"a source that was removed is not waited for", view(migration.Released, probationOver, sourceRemoved, target(done)), "record confirm"},

		{"both undo an ABORT at once", view(migration.Aborted, source(frozen), target(held)), "source abort e7; target abort e7"},
		{"the source has", view(migration.Aborted, source(undone), target(held)), "target abort e7"},
		{"a host without a session has nothing to undo", view(migration.Aborted, source(undone), targetIs(absent)), "record undone"},
		{"a silent host is waited for", view(migration.Aborted, source(undone), targetIs(lost(0)), after(time.Minute)),
			"target abort e7; note waiting for host b: gone; mend it"},

		{"two silent hosts are waited for with one note", view(migration.Aborted, sourceIs(lost(0)), targetIs(lost(0)), after(time.Minute)),
			"source abort e7; target abort e7; note waiting for host a: gone; mend it"},

		{"the target is swept before the source resumes", view(migration.Reclaimed, source(frozen), target(released, signal(9))), "target reclaim e9"},
		{"then the source resumes", view(migration.Reclaimed, source(frozen), target(undone)), "source reclaim e9"},
		{"a rebooted target has nothing to sweep", view(migration.Reclaimed, source(frozen), target(released), targetRebooted), "source reclaim e9"},
		{"the source runs again", view(migration.Reclaimed, source(undone), target(undone)), "record undone"},

		{"DONE", view(migration.Done, source(frozen), target(released)), ""},
		{"ROLLED_BACK", view(migration.RolledBack), ""},
	} {
		if got := words(Next(c.v)); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.why, got, c.want)
		}
	}
}

func TestAVerdictIsProposedFromThePhaseAndEpochThatWereSeen(t *testing.T) {
	acts := Next(view(migration.Held, target(workerapi.StepHeld), source(workerapi.StepFrozen)))
	s, ok := acts[0].Change.(record.Step)
	if !ok || s.From != migration.Held || s.Epoch != 7 || s.Migration != "m" {
		t.Errorf("got %+v", acts[0])
	}
}

func TestTheBlackoutIsFromFreezeToRelease(t *testing.T) {
	v := view(migration.Committed)
	frozen := state(migration.Source, workerapi.StepFrozen)
	frozen.FrozenFor = 10 * time.Millisecond
	v.Source.Hear(frozen, t0)
	v.Target.Hear(state(migration.Target, workerapi.StepReleased), t0.Add(90*time.Millisecond))
	s := Next(v)[0].Change.(record.Step)
	if s.Blackout != 100*time.Millisecond {
		t.Errorf("it is %s", s.Blackout)
	}
}

func TestAStaleWordChangesNothing(t *testing.T) {
	var s Side
	s.Hear(state(migration.Target, workerapi.StepReleased), t0)
	dead := state(migration.Target, workerapi.StepReleased)
	dead.ExitSignal = 9
	s.Hear(dead, t0)
	for _, stale := range []workerapi.Step{workerapi.StepOpen, workerapi.StepHeld, workerapi.StepReleased} {
		st := state(migration.Target, stale)
		st.Alive = true
		s.Hear(st, t0)
		if s.Session.Step != workerapi.StepReleased || s.Session.Alive || s.Session.ExitSignal != 9 {
			t.Errorf("after %s again it is %+v", stale, s.Session)
		}
	}
}

func TestOnlySilenceCountsAsLost(t *testing.T) {
	for kind, lost := range map[errs.Kind]bool{errs.Unavailable: true, errs.Timeout: true, errs.Conflict: false, errs.NotFound: false, errs.Failed: false} {
		var s Side
		s.fail(errs.New(kind, "x"), t0)
		if !s.Lost.IsZero() != lost {
			t.Errorf("%s: lost since %v", kind, s.Lost)
		}
	}
	var s Side
	s.fail(errors.New("plain"), t0)
	s.fail(errs.New(errs.Unavailable, "x"), t0)
	s.fail(errs.New(errs.Unavailable, "x"), t0.Add(time.Minute))
	if s.Lost != t0 {
		t.Errorf("it is lost since %v, not since the first failure", s.Lost)
	}
}
