package workloads

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/worker/cgroup"
	"drover/worker/keeper"
)

// Config says where a Host keeps things and what it needs of others.
type Config struct {
	StateDir string // records and output; survives a reboot
	RunDir   string // keepers and images; goes with one
	CRIU     string // path of criu, "" looks in PATH
	Binary   string // drover's own, for keepers; "" is the running one
	Debug    bool

	// Look finds the options CRIU needs for a tree, and the pids (in its own namespace) that are stopped by a signal. nil takes
	// the options that are safe for any tree.
	Look func(ctx context.Context, spec workload.Spec, t engine.Tree) (engine.Options, []int, error)
	// Fit says why this host can neither dump nor restore a tree, nil if it can; it is asked before anything is touched. nil means that it can.
	Fit func() error
	// OnExit is called, from a goroutine of its own, when a workload has ended that was not being moved.
	OnExit func(workload.Status)
	Log    *slog.Logger
}

// Host is the workloads of this host. All methods may be called from several goroutines; those that change one workload wait
// for each other.
type Host struct {
	cfg   Config
	store store
	mount string // of cgroup v2
	boot  string
	log   *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu  sync.Mutex // guards all, and every entry's rec
	all map[string]*entry
}

// entry is one workload. turn is held, as a token, by whoever changes it.
type entry struct {
	name string
	turn chan struct{}
	rec  record // guarded by Host.mu; changed only by the holder of turn
	// exit is closed when the tree that lives now has ended and that has been recorded.
	exit chan struct{}
	// carried is what Carry has handed out for the migration of that id.
	carried map[fileKey]signature
	carrier migration.ID
	trouble string // Status.Trouble
	// spawning: two keepers of one tree are not started at once. One that does not answer keeps no other tree waiting.
	spawning sync.Mutex
}

// Open reads the records, meets the keepers again and finds out what became of the trees while no worker ran.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	mount, err := cgroup.Mount()
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Fit == nil {
		cfg.Fit = func() error { return nil }
	}
	h := &Host{cfg: cfg, store: store{cfg.StateDir}, mount: mount, boot: bootID(), log: cfg.Log, all: map[string]*entry{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for _, d := range []string{"keepers", "images", "netns"} {
		if err := os.MkdirAll(filepath.Join(cfg.RunDir, d), 0o700); err != nil {
			return nil, errs.New(errs.Failed, "make the run directory: %w", err)
		}
	}
	records, err := h.store.load()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		e := h.entry(r.Spec.Name)
		e.rec = r
		if err := h.meetAgain(ctx, e); err != nil {
			h.log.Error("a workload's state could not be found out", "workload", e.name, "error", err)
		}
	}
	return h, nil
}

// Close stops watching. Trees and keepers live on.
func (h *Host) Close() {
	h.cancel()
	h.tasks.Wait()
}

func (h *Host) keeperDir(name string) keeper.Dir {
	return keeper.Dir(filepath.Join(h.cfg.RunDir, "keepers", name))
}

func (h *Host) client(name string) *keeper.Client { return &keeper.Client{Dir: h.keeperDir(name)} }

// entry is the workload of that name, made if there is none; the record of a new one is "gone" at epoch 0.
func (h *Host) entry(name string) *entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.all[name]
	if e == nil {
		e = &entry{name: name, turn: make(chan struct{}, 1), rec: record{State: gone, Spec: workload.Spec{Name: name}}}
		h.all[name] = e
	}
	return e
}

// known is the workload of that name if this host lists it.
func (h *Host) known(name string) (*entry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.all[name]
	if e == nil || e.rec.State == gone || e.rec.State == reserved {
		return nil, errs.New(errs.NotFound, "workload %s is not on this host", name).WithNext("list them with `drover workloads`")
	}
	return e, nil
}

// take waits for its turn with e; the returned function ends it.
func (e *entry) take(ctx context.Context) (func(), error) {
	select {
	case e.turn <- struct{}{}:
		return func() { <-e.turn }, nil
	case <-ctx.Done():
		return nil, errs.New(errs.KindOf(ctx.Err()), "workload %s is busy: %w", e.name, ctx.Err())
	}
}

// record is a copy of what is known of e.
func (h *Host) record(e *entry) record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return e.rec
}

// put makes r what is known of e, on the disk first.
func (h *Host) put(e *entry, r record) error {
	if err := h.store.save(r); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e.rec = r
	return nil
}

// mayChange refuses what is older than what was seen, and what would touch a tree that is being moved.
func (r record) mayChange(what string) error {
	switch r.State {
	case workload.Migrating, workload.HeldState:
		return errs.New(errs.Conflict, "cannot %s workload %s: migration %s is moving it", what, r.Spec.Name, r.Migration).
			WithNext("wait for it, or abort it with `drover abort %s`", r.Migration)
	case workload.Starting:
		return errs.New(errs.Conflict, "cannot %s workload %s: it is still starting", what, r.Spec.Name)
	}
	return nil
}

func (r record) notOlder(epoch migration.Epoch) error {
	if epoch < r.Epoch {
		return errs.New(errs.Conflict, "workload %s is at epoch %d here: a request of epoch %d is out of date", r.Spec.Name, r.Epoch, epoch)
	}
	return nil
}
