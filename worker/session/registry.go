package session

import (
	"context"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"drover/engine/track"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	workerapi "drover/worker/api"
	"drover/worker/journal"
	"drover/worker/pace"
	"drover/worker/session/rules"
	"drover/worker/tree"
)

// endedKept is how many sessions that have ended stay known, so that a call repeated late still gets its answer.
const endedKept = 128

// Config is what a Registry needs of its host.
type Config struct {
	Host    string // this host's name
	Boot    string // its boot id, "" if it is not known
	Trees   tree.Host
	Journal *journal.Journal
	// Dial opens a page channel to another host's worker, by a transfer's certificate (OpenRequest.Permit) that is bound to t.
	Dial func(ctx context.Context, to workerapi.Peer, t pki.Transfer, permit string) (net.Conn, error)
	// Tracker makes the tracker of that name ("" chooses the best one) for a tree; dir is an empty directory in memory.
	Tracker func(ctx context.Context, name string, lent tree.Lent, dir string) (track.Tracker, error)
	// Images is a directory in memory (tmpfs), 0700, for the images of sources.
	Images string
	// MemoryFree is the memory this host could still give to trees, in bytes, without what sessions have reserved.
	MemoryFree func() (int64, error)
	// MemoryLimit is the most that trees that come are promised, in bytes; 0 is what is free.
	MemoryLimit int64
	Stores      Stores
	// CPU and Nice are what copying may take of the host's processors; nil is all, with the worker's own priority.
	CPU  *pace.CPU
	Nice *pace.Nice
	// StillFor is for how long what fills in the memory of a tree that runs may stand still before the tree is killed, so that the source can
	// go on; 0 is 10 s.
	StillFor time.Duration
	Log      *slog.Logger
}

// Registry holds the sessions of a host and answers the calls of workerapi.Worker that concern them.
type Registry struct {
	cfg   Config
	ctx   context.Context // the sessions' own time
	close context.CancelFunc

	opened    atomic.Uint64 // sessions, since the start
	bandwidth bandwidth

	mu       sync.Mutex
	sessions map[migration.ID]*session
	order    []migration.ID             // in which they were opened
	epochs   map[string]migration.Epoch // the newest seen of each workload
	promised map[migration.ID]promise
	kept     map[string]*kept // by workload
	// shelfWatched says that somebody looks after kept.
	shelfWatched bool
	asides       sync.WaitGroup // of those who do, and of what fills it
	takingUp     sync.WaitGroup // of sessions, after a restart
	rate         float64        // of the last filling of a tree's memory, bytes a second; 0 if there was none
}

// New makes a registry without sessions; Recover then takes up those of a journal.
func New(cfg Config) *Registry {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{
		cfg:       cfg,
		bandwidth: bandwidth{of: map[migration.ID]*sending{}},
		sessions:  map[migration.ID]*session{}, epochs: map[string]migration.Epoch{}, promised: map[migration.ID]promise{},
		kept: map[string]*kept{},
	}
	r.ctx, r.close = context.WithCancel(context.Background())
	return r
}

// Close ends all work and returns when it is over. What is held stays held; nothing is decided by it. What is kept goes.
func (r *Registry) Close() {
	r.close()
	r.takingUp.Wait()
	for _, s := range r.all() {
		if s.ready(context.Background()) == nil { // else it has not been taken up, and does nothing
			<-s.worked
		}
	}
	r.clearShelf()
}

// Open opens a session or returns the one there is of that id.
func (r *Registry) Open(ctx context.Context, req workerapi.OpenRequest) (workerapi.SessionState, error) {
	if err := check(r.cfg.Host, req); err != nil {
		return workerapi.SessionState{}, err
	}
	s, isNew, err := r.enter(req)
	if err != nil {
		return workerapi.SessionState{}, err
	}
	if !isNew {
		if err := s.ready(ctx); err != nil {
			return workerapi.SessionState{}, err
		}
		s, err = r.find(req.Migration) // opening it may have failed meanwhile
		if err != nil {
			return workerapi.SessionState{}, errs.New(errs.Unavailable, "migration %s could not be opened on %s just now", req.Migration, r.cfg.Host)
		}
		s.hear()
		return s.state(), nil
	}
	defer close(s.opened)
	if r.opened.Add(1)%endedKept == 0 {
		if err := r.compact(); err != nil {
			r.cfg.Log.Warn("journal not shortened", "error", err)
		}
	}
	if err := r.begin(ctx, s); err != nil {
		r.forget(s.req.Migration)
		close(s.worked)
		return workerapi.SessionState{}, errs.New(errs.KindOf(err), "open migration %s of %s on %s: %w", req.Migration, req.Spec.Name, r.cfg.Host, err)
	}
	return s.state(), nil
}

// begin prepares a new session and lets it work. On an error nothing is left.
func (r *Registry) begin(ctx context.Context, s *session) error {
	if s.side = newTarget(s); s.req.Role == migration.Source {
		s.side = newSource(s)
		if limit := s.req.HostLimit; limit != nil {
			r.LimitHost(*limit)
		}
	}
	if _, err := s.run(ctx, rules.Opening(s.req.Role)); err != nil {
		return err
	}
	s.start(r.ctx)
	return nil
}

// remembered is a request without what only opening needs: an inventory may be megabytes.
func remembered(req workerapi.OpenRequest) workerapi.OpenRequest {
	req.Inventory, req.Past, req.HostLimit = workerapi.Inventory{}, nil, nil
	return req
}

func check(host string, req workerapi.OpenRequest) error {
	if err := req.Migration.Valid(); err != nil {
		return err
	}
	if err := req.Spec.Validate(); err != nil {
		return err
	}
	if err := req.Options.Check(); err != nil {
		return err
	}
	mine := req.Source
	switch req.Role {
	case migration.Source:
	case migration.Target:
		mine = req.Target
	default:
		return errs.New(errs.Invalid, "migration %s: role %q is neither source nor target", req.Migration, string(req.Role))
	}
	if _, err := rules.Outcome(req.Role, req.Options); err != nil {
		return err
	}
	switch {
	case mine.Host != host:
		return errs.New(errs.Invalid, "migration %s: the request is for %q as %s, this is %s", req.Migration, mine.Host, req.Role, host)
	case req.Source.Host == req.Target.Host:
		return errs.New(errs.Invalid, "migration %s: source and target are both %s", req.Migration, host)
	case req.HostLimit != nil && *req.HostLimit < 0:
		return errs.New(errs.Invalid, "migration %s: a limit of %d bytes a second for %s is not possible", req.Migration, *req.HostLimit, req.Source.Host)
	case req.Epoch == 0:
		return errs.New(errs.Invalid, "migration %s has no epoch", req.Migration)
	}
	return nil
}

// enter finds the session of that id or makes room for a new one.
func (r *Registry) enter(req workerapi.OpenRequest) (s *session, isNew bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[req.Migration]; s != nil {
		if s.req.Role != req.Role || s.req.Epoch != req.Epoch {
			return nil, false, errs.New(errs.Conflict, "migration %s is open on %s as %s at %s, not as %s at %s",
				req.Migration, r.cfg.Host, s.req.Role, s.req.Epoch, req.Role, req.Epoch)
		}
		return s, false, nil
	}
	var busy migration.ID
	for id, other := range r.sessions {
		if other.req.Spec.Name == req.Spec.Name && !other.over() {
			busy = id
		}
	}
	if err := rules.MayOpen(req, r.cfg.Boot, r.epochs[req.Spec.Name], busy); err != nil {
		return nil, false, errs.New(errs.KindOf(err), "%s: %w", r.cfg.Host, err)
	}
	s = newSession(r, req)
	r.add(s)
	return s, true, nil
}

// add puts a session in; the oldest of too many that have ended goes. Called with the lock held.
func (r *Registry) add(s *session) {
	r.sessions[s.req.Migration] = s
	r.order = append(r.order, s.req.Migration)
	r.epochs[s.req.Spec.Name] = max(r.epochs[s.req.Spec.Name], s.req.Epoch)
	over := 0
	for i := len(r.order) - 1; i >= 0; i-- {
		id := r.order[i]
		if !r.sessions[id].over() {
			continue
		}
		if over++; over > endedKept {
			delete(r.sessions, id)
			r.order = slices.Delete(r.order, i, i+1)
		}
	}
}

func (r *Registry) forget(id migration.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, id)
	r.unpromise(id)
	r.order = slices.DeleteFunc(r.order, func(o migration.ID) bool { return o == id })
}

func (r *Registry) find(id migration.ID) (*session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[id]; s != nil {
		return s, nil
	}
	return nil, errs.New(errs.NotFound, "%s has no session of migration %s", r.cfg.Host, id)
}

// called is find for a coordinator's call: it waits until the session is ready, and remembers the call.
func (r *Registry) called(ctx context.Context, id migration.ID) (*session, error) {
	s, err := r.find(id)
	if err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	if s, err = r.find(id); err == nil {
		s.hear()
	}
	return s, err
}

func (r *Registry) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*session, 0, len(r.order))
	for _, id := range r.order {
		all = append(all, r.sessions[id])
	}
	return all
}

func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.diary.state.Ended()
}

// giveBack returns to the machine what the sessions needed, if none is left: Go would keep it from the trees for minutes.
func (r *Registry) giveBack() {
	if !slices.ContainsFunc(r.all(), func(s *session) bool { return !s.over() }) {
		go debug.FreeOSMemory()
	}
}

func (r *Registry) seen(workload string, e migration.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epochs[workload] = max(r.epochs[workload], e)
}
