package drive

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"drover/coordinator/record"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Log is the replicated record as a driver uses it.
type Log interface {
	// Read calls f with the record; f keeps no reference to its maps.
	Read(f func(*record.State))
	// Changed is closed at the record's next change.
	Changed() <-chan struct{}
	// Propose puts a change into the log; an error of kind Conflict means that the record has moved on.
	Propose(ctx context.Context, by string, change record.Change) (uint64, error)
}

// Hosts reaches workers.
type Hosts interface {
	Worker(h record.Host) workerapi.Worker
	// Boot is the boot id that the host last said, "" if it has said nothing to this leader.
	Boot(name string) string
}

const (
	firstRetry = 100 * time.Millisecond
	longest    = 2 * time.Second // between two tries
	idle       = time.Second     // boot ids and silence are looked at as often as that
)

// driver carries one migration to its end. Only run's goroutine touches its fields; calls and watches report by happened.
type driver struct {
	id       migration.ID
	log      Log
	hosts    Hosts
	by       string // in whose name it proposes
	slog     *slog.Logger
	progress func(workerapi.SessionState) // tells who watches; called from run's goroutine

	view      View
	workload  record.Workload
	inventory *workerapi.Inventory // of the source's tree, once somebody has looked
	slots     map[string]*slot
	happened  chan func() // each runs in run's goroutine
	watching  map[migration.Role]bool
	work      sync.WaitGroup // calls and watches
}

// slot is where calls of one sort go, one at a time: to the source, to the target, to the log. A call that is no longer wanted
// is cancelled, and the next waits until it has returned: no host gets an abort while an open is on its way.
type slot struct {
	busy   bool
	doing  Action
	cancel context.CancelFunc
	retry  time.Time // not before, for the same action
	pause  time.Duration
}

// run returns when the migration has ended (nil) or ctx is done: the next leader goes on.
func (d *driver) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer d.work.Wait()
	defer cancel()
	d.happened = make(chan func())
	d.slots = map[string]*slot{}
	d.watching = map[migration.Role]bool{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := d.log.Changed()
		if !d.refresh() || d.view.Migration.Phase.Final() {
			return nil
		}
		timer.Reset(time.Until(d.act(ctx)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		case f := <-d.happened:
			f()
		}
	}
}

// refresh brings the view up to the record; false if the migration is not in it.
func (d *driver) refresh() (known bool) {
	d.log.Read(func(s *record.State) {
		known = d.view.Refresh(s, d.id, d.hosts.Boot, time.Now())
		d.workload = s.Workloads[d.view.Migration.Workload]
	})
	return known
}

// act starts what next asks for and is not under way, and says when to decide again.
func (d *driver) act(ctx context.Context) (again time.Time) {
	again = d.view.Now.Add(idle)
	wanted := map[string]Action{}
	for _, a := range Next(d.view) {
		if a.Do == Wake {
			if a.At.Before(again) {
				again = a.At
			}
			continue
		}
		if _, taken := wanted[a.Slot()]; !taken { // the first asked for goes first
			wanted[a.Slot()] = a
		}
	}
	for name, s := range d.slots {
		if a, ok := wanted[name]; s.busy && s.doing.Do != Record && (!ok || !s.doing.Same(a)) {
			s.cancel() // its result still comes, then the next may go
		}
	}
	for name, a := range wanted {
		s := d.slots[name]
		if s == nil {
			s = &slot{}
			d.slots[name] = s
		}
		switch {
		case s.busy:
		case s.doing.Same(a) && d.view.Now.Before(s.retry):
			if s.retry.Before(again) {
				again = s.retry
			}
		default:
			d.start(ctx, s, a)
		}
	}
	return again
}

// Slot is the name of the slot an action goes to: of those that go to one, only one is done at a time. A look changes nothing and waits for nobody.
func (a Action) Slot() string {
	switch a.Do {
	case Record:
		return "log"
	case Look:
		return "look at " + string(a.Role)
	case Limit:
		return "limit"
	}
	return string(a.Role)
}

// Same says whether two actions ask for the same.
func (a Action) Same(b Action) bool {
	return a.Do == b.Do && a.Role == b.Role && a.Verdict == b.Verdict && a.Epoch == b.Epoch && a.Limit == b.Limit
}
