package drive

import (
	"context"
	"errors"
	"time"

	"drover/coordinator/record"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// limits bound one call; a call that runs out is repeated.
var limits = map[Verb]time.Duration{
	Open:    30 * time.Second,
	Look:    3 * time.Second,
	CutOver: 10 * time.Second,
	Limit:   5 * time.Second,
	Decide:  90 * time.Second, // returns when it has been acted on: a hung CRIU has 60 s
	Confirm: 90 * time.Second,
	Record:  10 * time.Second,
}

// answer is what a call brought.
type answer struct {
	role  migration.Role // of the host that it is about
	state *workerapi.SessionState
	inv   *workerapi.Inventory
	err   error
}

// start does a in its slot.
func (d *driver) start(ctx context.Context, s *slot, a Action) {
	if a.Do == Look {
		a.At = time.Now()
	}
	call := d.call(a)
	limited, cancel := context.WithTimeout(ctx, limits[a.Do])
	if !s.doing.Same(a) {
		s.pause = 0
	}
	s.busy, s.doing, s.cancel = true, a, cancel
	d.slog.Debug("migration step", "migration", d.id, "phase", d.view.Migration.Phase, "do", a.Do, "host", d.view.side(a.Role).Host, "verdict", a.Verdict)
	d.work.Go(func() {
		defer cancel()
		got := call(limited)
		unwanted := errors.Is(limited.Err(), context.Canceled)
		d.report(ctx, func() { d.finish(ctx, s, a, got, unwanted) })
	})
}

// report runs f in run's goroutine, unless that has ended.
func (d *driver) report(ctx context.Context, f func()) {
	select {
	case d.happened <- f:
	case <-ctx.Done():
	}
}

// finish takes in what came of a.
func (d *driver) finish(ctx context.Context, s *slot, a Action, got answer, unwanted bool) {
	s.busy = false
	side, now := d.view.side(got.role), time.Now()
	if got.inv != nil {
		d.inventory = got.inv
	}
	if got.err != nil {
		if unwanted {
			return
		}
		s.pause = min(max(firstRetry, 2*s.pause), longest)
		s.retry = now.Add(s.pause)
		if a.Do != Record {
			d.view.Answered(a, got.role, nil, got.err, now)
			d.slog.Info("migration step failed", "migration", d.id, "phase", d.view.Migration.Phase, "do", a.Do, "host", side.Host, "error", got.err)
		}
		return
	}
	s.pause, s.retry = 0, time.Time{}
	if a.Do != Record {
		d.view.Answered(a, got.role, got.state, nil, now)
	}
	if got.state != nil {
		d.heard(ctx, got.role, *got.state)
	}
}

// hear takes in a session's state.
func (d *driver) hear(ctx context.Context, role migration.Role, st workerapi.SessionState) {
	d.view.side(role).Hear(st, time.Now())
	d.heard(ctx, role, st)
}

// heard tells who watches, and sees that the session is watched.
func (d *driver) heard(ctx context.Context, role migration.Role, st workerapi.SessionState) {
	d.progress(st)
	if !d.watching[role] && !over(st.Step) {
		d.watching[role] = true
		d.work.Go(func() { d.watch(ctx, role) })
	}
}

func over(s workerapi.Step) bool { return s == workerapi.StepDone || s == workerapi.StepUndone }

// watch follows a session's events until the stream breaks off or the session ends, then asks once how it stands.
// hear starts it again when there is more to come.
func (d *driver) watch(ctx context.Context, role migration.Role) {
	w := d.worker(role)
	err := w.Watch(ctx, d.id, 0, func(e workerapi.Event) error {
		d.report(ctx, func() { d.hear(ctx, role, e.State) })
		return ctx.Err()
	})
	if ctx.Err() != nil {
		return
	}
	d.slog.Debug("watch ended", "migration", d.id, "role", role, "error", err)
	select { // a host that ends streams at once is not asked in a circle
	case <-time.After(firstRetry):
	case <-ctx.Done():
		return
	}
	look, cancel := context.WithTimeout(ctx, limits[Look])
	defer cancel()
	st, err := w.Session(look, d.id)
	d.report(ctx, func() {
		d.watching[role] = false
		if err != nil {
			d.view.side(role).fail(err, time.Now())
			return
		}
		d.hear(ctx, role, st)
	})
}

// worker reaches the host of that role where the record says that it is now.
func (d *driver) worker(role migration.Role) workerapi.Worker { return d.hosts.Worker(d.host(role)) }

func (d *driver) host(role migration.Role) (h record.Host) {
	d.log.Read(func(s *record.State) {
		m := s.Migrations[d.id]
		if h = s.Hosts[m.Source]; role == migration.Target {
			h = s.Hosts[m.Target]
		}
	})
	return h
}

// call is what a does, ready to run in another goroutine.
func (d *driver) call(a Action) func(context.Context) answer {
	if a.Do == Record {
		return func(ctx context.Context) answer {
			_, err := d.log.Propose(ctx, d.by, a.Change)
			return answer{err: err}
		}
	}
	w := d.worker(a.Role)
	state := func(st workerapi.SessionState, err error) answer {
		if err != nil {
			return answer{role: a.Role, err: err}
		}
		return answer{role: a.Role, state: &st}
	}
	switch a.Do {
	case Open:
		return d.open(a, w)
	case CutOver:
		return func(ctx context.Context) answer { return answer{role: a.Role, err: w.CutOver(ctx, d.id, a.Epoch)} }
	case Limit:
		return func(ctx context.Context) answer { return answer{role: a.Role, err: w.SetBandwidth(ctx, d.id, a.Limit)} }
	case Decide:
		return func(ctx context.Context) answer { return state(w.Decide(ctx, d.id, a.Verdict, a.Epoch)) }
	case Confirm:
		return func(ctx context.Context) answer { return state(w.Confirm(ctx, d.id, a.Epoch)) }
	}
	return func(ctx context.Context) answer { return state(w.Session(ctx, d.id)) }
}

// open looks at the tree, unless admission has, and opens a session with what it found.
func (d *driver) open(a Action, w workerapi.Worker) func(context.Context) answer {
	m, spec, inv := d.view.Migration, d.workload.Spec, d.inventory
	var past []workerapi.PastMove
	d.log.Read(func(s *record.State) { past = Past(s, m.Source, m.Target) })
	source, src, dst := d.worker(migration.Source), d.host(migration.Source), d.host(migration.Target)
	return func(ctx context.Context) answer {
		if inv == nil {
			found, err := source.Inspect(ctx, m.Workload)
			if err != nil {
				return answer{role: migration.Source, err: err}
			}
			inv = &found
		}
		st, err := w.Open(ctx, workerapi.OpenRequest{
			Migration: m.ID, Role: a.Role, Epoch: a.Epoch, Boot: m.Boot(a.Role), Spec: spec, Inventory: *inv, Options: m.Options, Past: past,
			Source: workerapi.Peer{Host: src.Name, Address: src.Address}, Target: workerapi.Peer{Host: dst.Name, Address: dst.Address},
			HostLimit: &src.Bandwidth,
		})
		if err != nil {
			return answer{role: a.Role, inv: inv, err: err}
		}
		return answer{role: a.Role, inv: inv, state: &st}
	}
}
