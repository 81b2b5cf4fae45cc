package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/coordinator/api"
	"drover/coordinator/consensus"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/internal/workload"
	"drover/transfer/link"
	workerapi "drover/worker/api"
)

// Config is what a coordinator needs.
type Config struct {
	Name      string         // a DNS label, unique among the coordinators
	Listen    string         // "host:port" to listen at; not needed with Listener
	Listener  net.Listener   // listened at instead of Listen; Run closes it
	Advertise string         // "host:port" at which workers and the other coordinators reach it
	DataDir   string         // the log and snapshots
	Identity  *pki.Identity  // of the role coordinator, with this name
	Authority *pki.Authority // the cluster's, which every coordinator holds
	Log       *slog.Logger   // nil is slog.Default

	// SaveIdentity keeps the identity with renewed certificates over a restart; nil keeps it nowhere.
	SaveIdentity func(*pki.Identity) error
	// NextAuthority is the authority's new key, if the cluster was changing it when this coordinator stopped. SaveAuthorities keeps
	// both over a restart, next may be nil; nil keeps them nowhere.
	NextAuthority   *pki.Authority
	SaveAuthorities func(now, next *pki.Authority) error

	// Bootstrap makes a cluster of one named Cluster, administered by FirstOperator (nil: by nobody yet), if DataDir holds
	// none. Every other coordinator joins by a token and gets the record from the leader.
	Bootstrap     bool
	Cluster       string
	FirstOperator *api.Operator

	Dial      link.DialFunc                                         // nil is TCP
	Heartbeat time.Duration                                         // see consensus.Config
	Workers   func(pool *link.Pool, h record.Host) workerapi.Worker // nil reaches the host over the pool; for tests
}

// Coordinator is one member of the cluster's head: a daemon, started by Run, that serves what API gives to whoever may ask.
type Coordinator struct {
	cfg   Config
	log   *slog.Logger
	node  *consensus.Node
	pool  *link.Pool
	links *link.Server
	certs *link.Renewal
	keys  keyring
	api   net.Listener
	lead  atomic.Pointer[lead] // nil unless it leads and is ready to
	close sync.Once
	// membership is held while the cluster's coordinators change, so that one that is being removed is not given a vote.
	membership sync.Mutex
}

// API answers as the leader for the caller that the context names (link.WithPeer), without asking what that caller may do;
// on a coordinator that does not lead every call is errs.Unavailable.
func (c *Coordinator) API() api.Coordinator { return service{c} }

// service is a Coordinator as its API has it, where Run is another word.
type service struct{ *Coordinator }

func (s service) Run(ctx context.Context, req api.RunRequest) (api.Workload, error) {
	return s.run(ctx, req)
}

// New starts a coordinator's consensus from its data directory. Nothing is served before Run, and Run must be called, if
// only with a ctx that is done: it closes what New opened.
func New(cfg Config) (*Coordinator, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	c := &Coordinator{
		cfg: cfg, log: cfg.Log.With("coordinator", cfg.Name),
		keys: keyring{save: cfg.SaveAuthorities, now: cfg.Authority, next: cfg.NextAuthority},
	}
	var dial []link.Option
	if cfg.Dial != nil {
		dial = append(dial, link.WithDial(cfg.Dial))
	}
	c.pool = link.NewPool(cfg.Identity, dial...)
	c.links = link.NewServer(cfg.Identity, link.Options{Keys: c.holderOf, Token: c.joinerOf, Removed: c.removed, Log: c.log})
	c.certs = &link.Renewal{Own: cfg.Identity, Ask: c.renewOwn, Save: cfg.SaveIdentity, Pool: c.pool, Server: c.links, Log: c.log}
	c.api = c.links.Listener(link.ChannelAPI, func(pki.Principal) bool { return true })
	peers := c.links.Listener(link.ChannelRaft, func(p pki.Principal) bool { return p.Role == pki.RoleCoordinator })
	node, err := consensus.Open(consensus.Config{
		Self: consensus.Peer{Name: cfg.Name, Address: cfg.Advertise}, Dir: filepath.Join(cfg.DataDir, "record"),
		Listener: peers, Dial: c.dialPeer, Log: c.log, Heartbeat: cfg.Heartbeat,
	})
	if err != nil {
		return nil, errors.Join(err, c.pool.Close())
	}
	c.node = node
	return c, nil
}

func (cfg Config) validate() error {
	if err := workload.ValidName("coordinator", cfg.Name); err != nil {
		return err
	}
	switch {
	case cfg.Identity == nil:
		return errs.New(errs.Invalid, "coordinator %s has no identity", cfg.Name).WithNext("drover cluster init, or join with a token")
	case cfg.Identity.Principal() != pki.Coordinator(cfg.Name):
		return errs.New(errs.Invalid, "the identity is %s's, not coordinator %s's", cfg.Identity.Principal(), cfg.Name)
	case cfg.Authority == nil:
		return errs.New(errs.Invalid, "coordinator %s does not have the cluster's authority", cfg.Name)
	case cfg.DataDir == "":
		return errs.New(errs.Invalid, "coordinator %s has no data directory", cfg.Name)
	case cfg.Bootstrap && cfg.Cluster == "":
		return errs.New(errs.Invalid, "a new cluster needs a name")
	}
	if _, port, err := net.SplitHostPort(cfg.Advertise); err != nil || port == "" || port == "0" {
		return errs.New(errs.Invalid, "coordinator %s: advertised address %q is not of the form host:port", cfg.Name, cfg.Advertise)
	}
	return nil
}

func (c *Coordinator) dialPeer(ctx context.Context, p consensus.Peer) (net.Conn, error) {
	return c.pool.Open(ctx, p.Address, pki.Coordinator(p.Name).String(), link.ChannelRaft)
}

// Run serves until ctx is done and returns when all has ended. It is called once.
func (c *Coordinator) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	failed := make(chan error, 4)
	background := func(what string, f func(context.Context) error) {
		work.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				failed <- errs.New(errs.KindOf(err), "%s: %w", what, err)
				cancel()
			}
		})
	}
	l, err := c.listen()
	if err != nil {
		return errors.Join(err, c.shutdown())
	}
	background("serve links", func(ctx context.Context) error { return c.links.Serve(ctx, l) })
	background("serve the API", c.serveAPI)
	background("lead", c.leadWhenElected)
	background("renew certificates", func(ctx context.Context) error { c.certs.Run(ctx); return nil })
	background("follow the cluster's key", c.followKeys)
	if c.cfg.Bootstrap {
		background("found the cluster", c.found)
	}
	c.log.Info("coordinator runs", "address", c.cfg.Advertise)
	<-ctx.Done()
	err = c.shutdown()
	work.Wait()
	select {
	case first := <-failed:
		return errors.Join(first, err)
	default:
		return err
	}
}

func (c *Coordinator) listen() (net.Listener, error) {
	if c.cfg.Listener != nil {
		return c.cfg.Listener, nil
	}
	l, err := net.Listen("tcp", c.cfg.Listen)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "coordinator %s cannot listen at %s: %w", c.cfg.Name, c.cfg.Listen, err).
			WithNext("see who has the port: ss -ltnp")
	}
	return l, nil
}

func (c *Coordinator) found(ctx context.Context) error {
	return c.node.Found(ctx, record.Found{Cluster: c.cfg.Cluster, Name: c.cfg.Name, Address: c.cfg.Advertise, Operator: c.cfg.FirstOperator})
}

func (c *Coordinator) shutdown() (err error) {
	c.close.Do(func() { err = errors.Join(c.node.Close(), c.pool.Close()) })
	return err
}

// recordWithin is how long somebody who wants in is kept waiting while this coordinator has no record yet: one that has just
// started learns from the others, or founds the cluster, within an election or two.
const recordWithin = 3 * time.Second

// awaitRecord returns once this coordinator knows anything, or does not for too long: before that it would refuse everybody.
func (c *Coordinator) awaitRecord() {
	late := time.NewTimer(recordWithin)
	defer late.Stop()
	for {
		changed := c.node.Changed()
		known := false
		c.node.Read(func(s *record.State) { known = s.Cluster != "" })
		if known {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			return
		}
	}
}

// holderOf, joinerOf and removed tell the wire whom the record knows.
func (c *Coordinator) holderOf(key ssh.PublicKey) (p pki.Principal, ok bool) {
	c.awaitRecord()
	text := pki.Format(key)
	c.node.Read(func(s *record.State) {
		for _, op := range s.Operators {
			if op.Key == text {
				p, ok = pki.Principal{Role: pki.RoleOperator, Name: op.Name, Level: op.Role}, true
				return
			}
		}
		for _, h := range s.Hosts {
			if h.Key == text {
				p, ok = pki.Principal{Role: pki.RoleLapsed, Name: h.Name}, true
			}
		}
	})
	return p, ok
}

func (c *Coordinator) joinerOf(secret string) (p pki.Principal, ok bool) {
	c.awaitRecord()
	hash := pki.HashSecret(secret)
	c.node.Read(func(s *record.State) {
		if t, known := s.Tokens[hash]; known && time.Now().Before(t.Expires) {
			p, ok = pki.Principal{Role: pki.RoleJoin, Name: hash[:12], Level: t.Role}, true
		}
	})
	return p, ok
}

func (c *Coordinator) removed(p pki.Principal) (gone bool) {
	c.node.Read(func(s *record.State) {
		if s.Cluster == "" { // it has not got the record yet
			return
		}
		switch p.Role {
		case pki.RoleWorker, pki.RoleLapsed:
			_, in := s.Hosts[p.Name]
			gone = !in
		case pki.RoleCoordinator:
			_, in := s.Members[p.Name]
			gone = !in
		}
	})
	return gone
}
