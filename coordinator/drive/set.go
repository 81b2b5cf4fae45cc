package drive

import (
	"context"
	"log/slog"
	"sync"

	"drover/coordinator/record"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Set keeps one driver for each migration that is under way, as long as this coordinator leads.
type Set struct {
	log   Log
	hosts Hosts
	by    string
	slog  *slog.Logger

	mu          sync.Mutex
	live        map[migration.ID]Live
	ended       []migration.ID                        // those in live that have ended, oldest first
	inventories map[migration.ID]*workerapi.Inventory // of migrations just admitted
	changed     chan struct{}                         // closed and replaced when live changes
}

// Live is what a driver knows of a migration beyond the record. It dies with the lead.
type Live struct {
	Source workerapi.SessionState
	Target workerapi.SessionState
}

// NewSet makes a set without drivers. They propose in by's name.
func NewSet(log Log, hosts Hosts, by string, l *slog.Logger) *Set {
	return &Set{
		log: log, hosts: hosts, by: by, slog: l, changed: make(chan struct{}),
		live: map[migration.ID]Live{}, inventories: map[migration.ID]*workerapi.Inventory{},
	}
}

// Run drives until ctx is done, which must be when this coordinator ceases to lead, and returns when every driver has ended.
func (s *Set) Run(ctx context.Context) {
	var drivers sync.WaitGroup
	defer drivers.Wait()
	driven := map[migration.ID]bool{}
	ended := make(chan migration.ID)
	for {
		changed := s.log.Changed()
		for _, id := range s.underWay() {
			if driven[id] {
				continue
			}
			driven[id] = true
			drivers.Go(func() {
				s.drive(ctx, id)
				select {
				case ended <- id:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case id := <-ended:
			delete(driven, id)
		case <-changed:
		}
	}
}

func (s *Set) underWay() (ids []migration.ID) {
	s.log.Read(func(st *record.State) {
		for id, m := range st.Migrations {
			if !m.Phase.Final() {
				ids = append(ids, id)
			}
		}
	})
	return ids
}

func (s *Set) drive(ctx context.Context, id migration.ID) {
	d := &driver{
		id: id, log: s.log, hosts: s.hosts, by: s.by, slog: s.slog,
		inventory: s.inventory(id),
		progress:  func(st workerapi.SessionState) { s.note(id, st) },
	}
	defer s.end(id)
	s.slog.Info("driving migration", "migration", id)
	if d.run(ctx) == nil {
		m := d.view.Migration
		s.slog.Info("migration ended", "migration", id, "workload", m.Workload, "phase", m.Phase, "blackout", m.Blackout, "reason", m.Reason)
	}
}

// Inspected hands over what admission has seen of a tree, so that the driver need not look again. It is called before the
// migration is in the record.
func (s *Set) Inspected(id migration.ID, inv workerapi.Inventory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inventories[id] = &inv
}

// NotAdmitted takes back what Inspected gave.
func (s *Set) NotAdmitted(id migration.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inventories, id)
}

func (s *Set) inventory(id migration.ID) *workerapi.Inventory {
	s.mu.Lock()
	defer s.mu.Unlock()
	inv := s.inventories[id]
	delete(s.inventories, id)
	return inv
}

func (s *Set) note(id migration.ID, st workerapi.SessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.live[id]
	if st.Role == migration.Source {
		l.Source = st
	} else {
		l.Target = st
	}
	s.live[id] = l
	s.wake()
}

// keepEnded is of how many ended migrations the last progress is kept, for those who look when all is over.
const keepEnded = 100

func (s *Set) end(id migration.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, id)
	for len(s.ended) > keepEnded {
		delete(s.live, s.ended[0])
		s.ended = s.ended[1:]
	}
}

func (s *Set) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Live is what the driver of id knows, or knew at its end; zero if there is none.
func (s *Set) Live(id migration.ID) Live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[id]
}

// Changed is closed when what any driver knows changes next.
func (s *Set) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
