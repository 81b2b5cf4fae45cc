package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	coordinatorapi "drover/coordinator/api"
	"drover/engine"
	"drover/engine/track"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/internal/workload"
	"drover/transfer/link"
	workerapi "drover/worker/api"
	"drover/worker/doctor"
	"drover/worker/journal"
	"drover/worker/pace"
	"drover/worker/session"
	"drover/worker/tree"
)

// Version is what HostFacts say of the program; the binary sets it.
var Version = "dev"

// Config is what a worker is started with.
type Config struct {
	Name         string // the host's
	Listen       string // "[address]:port" of the SSH port
	Advertise    string // host:port at which the others reach it; "" is Listen
	StateDir     string // journal, workload records, output; survives a reboot
	RunDir       string // sockets, images in memory, namespaces; goes with one
	Identity     *pki.Identity
	Coordinators []string // host:port
	// MemoryLimit is the most memory promised to incoming trees at once, in bytes; 0 is what the host has.
	MemoryLimit int64
	// StoreMemory is the most memory that the pages of incoming trees may take before the trees are rebuilt, all together, in bytes; 0
	// is what is free. StoreSpill is a directory on a disk for those that have no room, "" refuses such trees.
	StoreMemory int64
	StoreSpill  string
	// KeepStore is for how long pages of a tree that has left, or did not come after all, are kept for when it comes again; 0 keeps none.
	KeepStore time.Duration
	// CopyCPU is how much of this host's processors copying may use while a tree runs, in percent of all of them, 0 for no limit. CopyNice is the
	// nice value that the worker has meanwhile, 0 to 19.
	CopyCPU  int
	CopyNice int
	CRIU     string // path of criu, "" looks in PATH
	Log      *slog.Logger

	// SaveIdentity keeps the identity with renewed certificates over a restart; nil keeps it nowhere.
	SaveIdentity func(*pki.Identity) error

	// Parts replace what New would make itself; tests use them.
	Parts Parts
}

// Parts are what a worker is made of. Fields that are nil are made for real.
type Parts struct {
	Workloads Workloads
	Doctor    Doctor
	Engine    engine.Engine // only asked what it can do
	Tracker   func(ctx context.Context, name string, lent tree.Lent, dir string) (track.Tracker, error)
	Dial      link.DialFunc
	Listener  func(address string) (net.Listener, error)
	// Images says where images are kept in memory; nil mounts a tmpfs if there is none.
	Images func(dir string, limit int64) (release func() error, err error)
}

// Workloads is what a worker needs of its host's workloads, besides what sessions do.
type Workloads interface {
	tree.Host
	workloadCalls
	Close()
}

// Doctor looks at trees and hosts.
type Doctor interface {
	Inspect(ctx context.Context, name string) (workerapi.Inventory, error)
	Judge(ctx context.Context, inv workerapi.Inventory) ([]workerapi.Finding, error)
}

// Agent is a worker. It implements workerapi.Worker.
type Agent struct {
	workloadCalls
	doctorCalls
	*session.Registry

	cfg          Config
	log          *slog.Logger
	workloads    Workloads
	engine       *prober
	pool         *link.Pool
	certs        *link.Renewal
	tracker      func(ctx context.Context, name string, lent tree.Lent, dir string) (track.Tracker, error)
	coordinators *coordinators
	journal      *journal.Journal
	past         []journal.Record
	images       func() error // gives the directory in memory back
	nice         *pace.Nice   // of copying
	started      time.Time
	asked        asked
	strangers    map[string]bool
}

// doctorCalls is Doctor under a name of its own: embedded, it answers the API.
type doctorCalls = Doctor

var _ workerapi.Worker = (*Agent)(nil)

// New prepares a worker: its directories, its journal and its workloads. It serves nobody yet. Whoever calls it calls Run,
// which also gives back what New took.
func New(cfg Config) (*Agent, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, log: cfg.Log.With("host", cfg.Name), started: time.Now(), asked: newAsked(), strangers: map[string]bool{}}
	if err := a.prepare(); err != nil {
		return nil, errors.Join(errs.New(errs.KindOf(err), "start the worker of %s: %w", cfg.Name, err).WithNext("%s", errs.NextOf(err)), a.giveBack())
	}
	return a, nil
}

func (c *Config) check() error {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Advertise == "" {
		c.Advertise = c.Listen
	}
	if err := workload.ValidName("host", c.Name); err != nil {
		return err
	}
	for what, v := range map[string]string{"address to listen at": c.Listen, "state directory": c.StateDir, "run directory": c.RunDir} {
		if v == "" {
			return errs.New(errs.Invalid, "worker %s has no %s", c.Name, what)
		}
	}
	switch {
	case c.Identity == nil || c.Identity.HostCert == nil:
		return errs.New(errs.Invalid, "worker %s has no identity", c.Name).WithNext("let it join first: drover join TOKEN --name %s", c.Name)
	case c.Identity.Role != pki.RoleWorker || c.Identity.Name != c.Name:
		return errs.New(errs.Invalid, "worker %s was given the identity of %s", c.Name, c.Identity.Principal())
	case len(c.Coordinators) == 0:
		return errs.New(errs.Invalid, "worker %s knows no coordinator", c.Name)
	case c.MemoryLimit < 0:
		return errs.New(errs.Invalid, "worker %s: a memory limit of %d bytes is not possible", c.Name, c.MemoryLimit)
	case c.StoreMemory < 0:
		return errs.New(errs.Invalid, "worker %s: %d bytes of memory for stores are not possible", c.Name, c.StoreMemory)
	case c.KeepStore < 0:
		return errs.New(errs.Invalid, "worker %s: stores cannot be kept for %s", c.Name, c.KeepStore)
	}
	return c.Identity.Genuine()
}

func (a *Agent) prepare() (err error) {
	for _, dir := range []string{a.cfg.StateDir, a.cfg.RunDir, a.imagesDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return errs.New(errs.Failed, "make directory: %w", err)
		}
	}
	if a.nice, err = pace.NewNice(a.cfg.CopyNice); err != nil {
		return errs.New(errs.KindOf(err), "copy with a lower priority (copy_nice): %w", err)
	}
	if a.cfg.StoreSpill != "" {
		if err := CheckSpill(a.cfg.StoreSpill); err != nil {
			return err
		}
	}
	if lacks := doctor.Lacking(); len(lacks) > 0 {
		a.log.Warn("this worker lacks capabilities that trees may need to move: drover doctor says which cannot", "lacks", strings.Join(lacks, ", "))
	}
	j, got, err := journal.Open(filepath.Join(a.cfg.StateDir, "journal"))
	if err != nil {
		return err
	}
	a.journal, a.past = j, got.Records
	if got.Torn > 0 {
		a.log.Warn("journal ended in a record that was never acted on; it is gone", "bytes", got.Torn)
	}
	inMemory := a.cfg.Parts.Images
	if inMemory == nil {
		inMemory = mountImages
	}
	if a.images, err = inMemory(a.imagesDir(), a.cfg.MemoryLimit); err != nil {
		return err
	}
	if err := a.makeParts(); err != nil {
		return err
	}
	a.wire()
	return nil
}

func (a *Agent) imagesDir() string { return filepath.Join(a.cfg.RunDir, "images") }

// wire joins the parts.
func (a *Agent) wire() {
	a.pool = link.NewPool(a.cfg.Identity, a.dialing()...)
	a.coordinators = a.reach(a.pool)
	a.certs = &link.Renewal{Own: a.cfg.Identity, Ask: a.renew, Save: a.cfg.SaveIdentity, Pool: a.pool, Log: a.log}
	a.Registry = session.New(session.Config{
		CPU: pace.NewCPU(a.cfg.CopyCPU), Nice: a.nice, Host: a.cfg.Name, Boot: bootID(), Trees: a.workloads, Journal: a.journal, Images: a.imagesDir(),
		Dial:    a.dialPages,
		Tracker: a.tracker, MemoryFree: a.memoryFree, MemoryLimit: a.cfg.MemoryLimit, Log: a.log,
		Stores: session.Stores{
			Memory: a.cfg.StoreMemory, Keep: a.cfg.KeepStore, Spill: a.cfg.StoreSpill, SpillFree: func() (int64, error) { return diskFree(a.cfg.StoreSpill) },
		},
	})
}

func (a *Agent) dialing() []link.Option {
	if a.cfg.Parts.Dial == nil {
		return nil
	}
	return []link.Option{link.WithDial(a.cfg.Parts.Dial)}
}

// reach is the coordinators as a pool reaches them.
func (a *Agent) reach(pool *link.Pool) *coordinators {
	return newCoordinators(a.cfg.Coordinators, func(address string) coordinatorapi.Coordinator {
		return coordinatorapi.NewClient(pool.HTTP(address, pki.RoleCoordinator))
	})
}

// Run takes up what the journal says and serves until ctx is done. Trees, and what is held, live on without it. It returns nil
// after an orderly end.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.giveBack()) }()
	if err := a.Recover(ctx, a.past); err != nil {
		return err
	}
	a.past = nil
	listen := a.cfg.Parts.Listener
	if listen == nil {
		listen = func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	l, err := listen(a.cfg.Listen)
	if err != nil {
		return errs.New(errs.Failed, "listen at %s: %w", a.cfg.Listen, err).WithNext("see whether another worker runs on %s", a.cfg.Name)
	}
	a.log.Info("worker runs", "listen", a.cfg.Listen, "advertise", a.cfg.Advertise)
	g, ctx := errgroup.WithContext(ctx)
	a.serve(ctx, g, l)
	g.Go(func() error { a.beat(ctx); return nil })
	g.Go(func() error { a.pollVerdicts(ctx); return nil })
	g.Go(func() error { a.certs.Run(ctx); return nil })
	return g.Wait()
}

// giveBack ends what New began. What is held stays held.
func (a *Agent) giveBack() error {
	var all []error
	if a.Registry != nil {
		a.Registry.Close()
	}
	if a.workloads != nil {
		a.workloads.Close()
	}
	if a.engine != nil {
		a.engine.end()
	}
	if a.pool != nil {
		all = append(all, a.pool.Close())
	}
	if a.journal != nil {
		all = append(all, a.journal.Close())
	}
	if a.images != nil {
		all = append(all, a.images())
	}
	return errors.Join(all...)
}
