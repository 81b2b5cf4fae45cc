package agent

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	coordinatorapi "drover/coordinator/api"
	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/internal/workload"
	"drover/transfer/link"
	"drover/transfer/transfertest"
	workerapi "drover/worker/api"
	"drover/worker/session/sessiontest"
)

const (
	name = "redis-7"
	id   = migration.ID("m-1")
	at   = migration.Epoch(5)
)

// cluster is a coordinator and workers on a network in memory, with real SSH between them and model trees on them.
type cluster struct {
	t         *testing.T
	authority *pki.Authority
	network   *transfertest.Network
	world     *sessiontest.World
	hosts     map[string]*host
	record    *record
	pool      *link.Pool // the coordinator's
	saveTo    func(*pki.Identity) error
	engine    engine.Engine // the workers'
}

// host is a worker's host, which stays when the worker is restarted.
type host struct {
	name     string
	trees    *sessiontest.Host
	state    string
	run      string
	identity *pki.Identity
	stop     func()
}

// record is what the coordinator knows. It implements the calls workers make.
type record struct {
	coordinatorapi.Coordinator
	mu    sync.Mutex
	phase migration.Phase // of every migration; "" knows none
	beats map[string]coordinatorapi.Heartbeat
	asked int
	heard int // heartbeats
	// authority certifies who asks; nil refuses.
	authority *pki.Authority
	trust     pki.Trust // and the one of it that signs, while the cluster changes its key
	signing   ssh.PublicKey
	lapsed    ssh.PublicKey // alpha is known by it when it has no certificate
}

func (r *record) Renew(ctx context.Context, text string) (reply coordinatorapi.RenewReply, _ error) {
	key, err := pki.ParsePublicKey(text)
	if err != nil || r.authority == nil {
		return reply, errs.New(errs.Forbidden, "nobody is certified: %v", err)
	}
	p, _ := link.PeerFrom(ctx)
	host, user, err := r.authority.Certify(key, pki.Worker(p.Name), 24*time.Hour)
	if err != nil {
		return reply, err
	}
	return coordinatorapi.RenewReply{HostCert: pki.Format(host), UserCert: pki.Format(user)}, nil
}

func (r *record) Heartbeat(_ context.Context, hb coordinatorapi.Heartbeat) (coordinatorapi.HeartbeatReply, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beats[hb.Facts.Name] = hb
	r.heard++
	if r.signing != nil {
		return coordinatorapi.HeartbeatReply{Authorities: r.trust.Lines(), Signing: pki.Format(r.signing)}, nil
	}
	return coordinatorapi.HeartbeatReply{}, nil
}

func (r *record) Verdict(_ context.Context, id migration.ID) (coordinatorapi.VerdictReply, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if r.phase == "" {
		return coordinatorapi.VerdictReply{}, errs.New(errs.NotFound, "no migration %s", id)
	}
	return coordinatorapi.VerdictReply{Phase: r.phase, Verdict: r.phase.Verdict()}, nil
}

func (r *record) decide(p migration.Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = p
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	authority, err := pki.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{
		t: t, authority: authority, network: transfertest.NewNetwork(), world: sessiontest.NewWorld(), hosts: map[string]*host{},
		record: &record{beats: map[string]coordinatorapi.Heartbeat{}}, engine: noEngine{},
	}
	c.pool = link.NewPool(c.identity(pki.Coordinator("c1")), link.WithDial(c.network.From("c1")))
	t.Cleanup(func() { c.pool.Close() })
	t.Cleanup(func() {
		for _, w := range c.world.Wrong() {
			t.Error(w)
		}
	})
	return c
}

func (c *cluster) identity(p pki.Principal) *pki.Identity {
	c.t.Helper()
	id, err := c.authority.NewIdentity(p, time.Hour)
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// coordinate starts the coordinator and returns what stops it.
func (c *cluster) coordinate() (stop func()) {
	c.t.Helper()
	l, err := c.network.Listen("c1:7201")
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	id := c.identity(pki.Coordinator("c1"))
	if c.record.trust != nil {
		id.Trust = c.record.trust
	}
	server := link.NewServer(id, link.Options{Log: slog.New(slog.DiscardHandler), Keys: func(key ssh.PublicKey) (pki.Principal, bool) {
		return pki.Principal{Role: pki.RoleLapsed, Name: "alpha"}, pki.SameKey(key, c.record.lapsed)
	}})
	calls := server.Listener(link.ChannelAPI, func(p pki.Principal) bool { return p.Role == pki.RoleWorker || p.Role == pki.RoleLapsed })
	api := &http.Server{Handler: coordinatorapi.NewHandler(c.record, func(context.Context, coordinatorapi.Need) error { return nil }), ConnContext: link.ConnContext}
	var all sync.WaitGroup
	all.Go(func() { api.Serve(calls) })
	all.Go(func() { server.Serve(ctx, l) })
	stop = sync.OnceFunc(func() { cancel(); api.Close(); all.Wait() })
	c.t.Cleanup(stop)
	return stop
}

// model is a host's workloads in the world, as far as these tests need them.
type model struct {
	*sessiontest.Host
	workloadCalls
}

func (m model) Workloads(context.Context) ([]workload.Status, error) {
	return []workload.Status{{Name: name, State: workload.Running, Epoch: at}}, nil
}
func (m model) Close() {}

type noEngine struct{ engine.Engine }

func (noEngine) Probe(context.Context) (engine.Features, error) {
	return engine.Features{Engine: "model"}, nil
}

type noDoctor struct{ Doctor }

func (c *cluster) config(h *host) Config {
	return Config{
		Name: h.name, Listen: h.name + ":7202", StateDir: h.state, RunDir: h.run, Identity: h.identity,
		Coordinators: []string{"c0:7201", "c1:7201"}, Log: slog.New(slog.DiscardHandler), SaveIdentity: c.saveTo,
		Parts: Parts{
			Workloads: model{Host: h.trees}, Doctor: noDoctor{}, Engine: c.engine, Tracker: sessiontest.Tracker,
			Dial: c.network.From(h.name), Listener: func(a string) (net.Listener, error) { return c.network.Listen(a) },
			Images: func(string, int64) (func() error, error) { return func() error { return nil }, nil },
		},
	}
}

// host is a host, which is made when first asked for.
func (c *cluster) host(name string) *host {
	c.t.Helper()
	h := c.hosts[name]
	if h == nil {
		dir := c.t.TempDir()
		h = &host{name: name, state: filepath.Join(dir, "state"), run: filepath.Join(dir, "run"), identity: c.identity(pki.Worker(name))}
		h.trees = c.world.Host(name, c.t.TempDir())
		c.hosts[name] = h
	}
	return h
}

// work starts a host's worker.
func (c *cluster) work(name string) *host {
	c.t.Helper()
	h := c.host(name)
	a, err := New(c.config(h))
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("worker %s: %v", name, err)
		}
	})
	c.t.Cleanup(h.stop)
	c.until("worker "+name+" to answer", func() bool {
		_, err := c.api(name).Host(c.t.Context())
		return err == nil
	})
	return h
}

// api is a host's worker as the coordinator reaches it.
func (c *cluster) api(name string) workerapi.Worker {
	return workerapi.NewClient(c.pool.HTTP(name+":7202", "worker:"+name))
}

// until waits for a condition.
func (c *cluster) until(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("waited in vain for %s; runs on %v, held on %v", what, c.world.Running(name), c.world.Held(name))
		}
	}
}

// hold starts both workers and brings a migration to where both trees are held.
func (c *cluster) hold() {
	c.t.Helper()
	c.work("alpha").trees.Run(name, at)
	c.work("beta")
	spec := workload.Spec{Name: name, Kind: workload.Run, Command: []string{"redis-server"}}
	for _, r := range []migration.Role{migration.Target, migration.Source} {
		req := workerapi.OpenRequest{
			Migration: id, Role: r, Epoch: at, Spec: spec, Inventory: workerapi.Inventory{Spec: spec},
			Source: workerapi.Peer{Host: "alpha", Address: "alpha:7202"}, Target: workerapi.Peer{Host: "beta", Address: "beta:7202"},
		}
		sent := pki.Transfer{Migration: id, Epoch: at, Source: "alpha", Target: "beta", Direction: pki.Pages}
		cert, err := c.authority.SignTransfer(c.host("alpha").identity.Signer.PublicKey(), sent, time.Hour)
		if err != nil {
			c.t.Fatal(err)
		}
		req.Permit = pki.Format(cert)
		if _, err := c.api(map[migration.Role]string{migration.Target: "beta", migration.Source: "alpha"}[r]).Open(c.t.Context(), req); err != nil {
			c.t.Fatal(err)
		}
	}
	c.until("the cut-over", func() bool { return c.api("alpha").CutOver(c.t.Context(), id, at) == nil })
	c.until("both to be held", func() bool {
		return slices.Equal(c.world.Held(name), []string{"alpha", "beta"}) && c.step("beta") == workerapi.StepHeld && c.step("alpha") == workerapi.StepStaged
	})
}

func (c *cluster) step(host string) workerapi.Step {
	st, err := c.api(host).Session(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return st.Step
}
