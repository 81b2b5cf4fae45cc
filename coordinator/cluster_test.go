package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/internal/workload"
	"drover/transfer/link"
	"drover/transfer/transfertest"
	workerapi "drover/worker/api"
)

// cluster is coordinators and hosts joined by SSH over connections in memory, with their records on disk, in a bubble.
type cluster struct {
	t            *testing.T
	net          *transfertest.Network
	authority    *pki.Authority
	world        *world
	coordinators map[string]*member
	pool         *link.Pool // the operator's
	key          string     // file of the operator's
	log          *slog.Logger
}

// member is a running coordinator.
type member struct {
	*Coordinator
	cfg    Config
	stop   func()
	killed atomic.Bool // its port and its connections were taken from it
}

// inBubble runs f with a cluster in a synctest bubble: time passes when nobody works.
func inBubble(t *testing.T, coordinators int, f func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, coordinators)
		defer c.close()
		f(t, c)
	})
}

func newCluster(t *testing.T, coordinators int) *cluster {
	t.Helper()
	c := &cluster{t: t, net: transfertest.NewNetwork(), world: newWorld(t), coordinators: map[string]*member{}, log: slog.New(slog.DiscardHandler)}
	if os.Getenv("DROVER_TEST_LOG") != "" {
		c.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c.authority = must(pki.NewAuthority())(t)
	key := must(pki.NewKey())(t)
	file := filepath.Join(t.TempDir(), "operator")
	if err := os.WriteFile(file, must(key.PEM())(t), 0o600); err != nil {
		t.Fatal(err)
	}
	c.key = file
	c.pool = link.NewPoolFor(c.operator(c.authority.Trust()), link.WithDial(c.net.From("desk")))
	c.start(Config{
		Name: "c1", Identity: must(c.authority.NewIdentity(pki.Coordinator("c1"), 24*time.Hour))(t), Authority: c.authority,
		Bootstrap: true, Cluster: "test", FirstOperator: &api.Operator{Name: "ada", Key: pki.Format(key.PublicKey()), Role: "admin"},
	})
	c.waitFor("c1 leads", func() bool { return c.coordinators["c1"].lead.Load() != nil && c.api("c1") != nil && c.named("c1") })
	for _, name := range []string{"c2", "c3", "c4", "c5"}[:coordinators-1] {
		c.join(name)
	}
	return c
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// named says whether the cluster has been founded as far as a coordinator knows.
func (c *cluster) named(at string) bool {
	st, err := c.coordinators[at].Cluster(context.Background())
	return err == nil && st.Name != ""
}

// start runs a coordinator from its config, whose gaps it fills.
func (c *cluster) start(cfg Config) *member {
	c.t.Helper()
	cfg.Advertise = cfg.Name + ":7201"
	cfg.Log = c.log
	cfg.Dial = c.net.From(cfg.Name)
	if cfg.DataDir == "" {
		cfg.DataDir = c.t.TempDir()
	}
	cfg.Listener = must(c.net.Listen(cfg.Advertise))(c.t)
	co := must(New(cfg))(c.t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	m := &member{Coordinator: co, cfg: cfg, stop: sync.OnceFunc(func() { cancel(); <-done })}
	go func() {
		defer close(done)
		err := co.Run(ctx)
		if m.killed.Load() && errors.Is(err, net.ErrClosed) { // it saw its port go before it was stopped
			return
		}
		if err != nil {
			c.t.Errorf("coordinator %s: %v", cfg.Name, err)
		}
	}()
	c.coordinators[cfg.Name] = m
	return m
}

// operator is the credentials of the first administrator.
func (c *cluster) operator(trust pki.Trust) link.Credentials { return link.AsOperator(trust, c.key) }

// join makes a new coordinator by a token, as a person would.
func (c *cluster) join(name string) {
	c.t.Helper()
	id, reply := c.enter(name, "coordinator", name+":7201")
	c.start(Config{Name: name, Identity: id, Authority: must(pki.ParseAuthority([]byte(reply.AuthorityKey)))(c.t)})
	c.waitFor(name+" has a vote", func() bool {
		for _, s := range c.coordinators[name].node.Servers() {
			if s.Name == name {
				return s.Voter
			}
		}
		return false
	})
}

// enter joins the cluster with a fresh token.
func (c *cluster) enter(name, role, address string) (*pki.Identity, api.JoinReply) {
	c.t.Helper()
	tok := must(c.any().NewToken(c.t.Context(), role, time.Hour))(c.t)
	key := must(pki.NewKey())(c.t)
	parsed := must(pki.ParseToken(tok.Token))(c.t)
	pool := link.NewPoolFor(link.AsJoiner(parsed), link.WithDial(c.net.From(name)))
	defer pool.Close()
	client := api.NewClient(pool.HTTP(c.leader().cfg.Advertise, pki.RoleCoordinator)) // the others may not have heard of the token yet
	reply := must(client.Join(c.t.Context(), api.JoinRequest{Token: tok.Token, Name: name, Role: role, Address: address, Key: pki.Format(key.PublicKey())}))(c.t)
	return &pki.Identity{
		Name: name, Role: role, Signer: key, Trust: must(pki.ParseTrust(reply.Authority))(c.t),
		HostCert: must(pki.ParseCertificate(reply.HostCert))(c.t), UserCert: must(pki.ParseCertificate(reply.UserCert))(c.t),
	}, reply
}

// addHost joins a fake worker to the cluster and has it serve and send heartbeats.
func (c *cluster) addHost(name string) *fakeWorker {
	c.t.Helper()
	h := c.world.host(name)
	id, reply := c.enter(name, "worker", h.address)
	h.connect(c, id, reply.Coordinators)
	c.waitFor(name+" is heard of", func() bool {
		l := c.leader()
		return l != nil && !l.lead.Load().presence.of(name).At.IsZero()
	})
	return h
}

// connect serves h over the network and sends its heartbeats to the first coordinator that takes them, until the test ends.
func (h *fakeWorker) connect(c *cluster, id *pki.Identity, coordinators []string) {
	c.t.Helper()
	links := link.NewServer(id, link.Options{Log: c.log})
	server := &http.Server{Handler: workerapi.NewHandler(h), ConnContext: link.ConnContext}
	l := must(c.net.Listen(h.address))(c.t)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	calls := links.Listener(link.ChannelAPI, func(p pki.Principal) bool { return p.Role == pki.RoleCoordinator })
	work.Go(func() { links.Serve(ctx, l) })
	work.Go(func() { server.Serve(calls) })
	pool := link.NewPool(id, link.WithDial(c.net.From(h.name)))
	certs := &link.Renewal{Own: id, Pool: pool, Server: links, Log: c.log, Ask: func(ctx context.Context, id *pki.Identity) (*pki.Identity, error) {
		reply, err := api.NewClient(pool.HTTP(coordinators[0], pki.RoleCoordinator)).Renew(ctx, pki.Format(id.Signer.PublicKey()))
		if err != nil {
			return nil, err
		}
		return id.Renewed(must(pki.ParseCertificate(reply.HostCert))(c.t), must(pki.ParseCertificate(reply.UserCert))(c.t))
	}}
	work.Go(func() { h.beat(ctx, certs, coordinators) })
	h.stop = sync.OnceFunc(func() { cancel(); server.Close(); pool.Close(); work.Wait() })
}

func (h *fakeWorker) beat(ctx context.Context, certs *link.Renewal, coordinators []string) {
	for ctx.Err() == nil {
		h.world.mu.Lock()
		hb := api.Heartbeat{Facts: h.facts(), Workloads: h.statuses()}
		for _, s := range h.sessions {
			hb.Sessions = append(hb.Sessions, s.now())
		}
		id := certs.Identity()
		hb.Facts.Trusts, hb.Facts.SignedBy = id.Trust.Fingerprints(), ssh.FingerprintSHA256(id.UserCert.SignatureKey)
		quiet := h.quiet
		h.world.mu.Unlock()
		for _, a := range coordinators {
			if quiet {
				break
			}
			once, cancel := context.WithTimeout(ctx, 2*time.Second)
			reply, err := api.NewClient(certs.Pool.HTTP(a, pki.RoleCoordinator)).Heartbeat(once, hb)
			if err == nil && reply.Signing != "" {
				err = certs.Follow(once, must(pki.ParseTrust(strings.Join(reply.Authorities, "\n")))(h.world.t), must(pki.ParsePublicKey(reply.Signing))(h.world.t))
			}
			if err == nil {
				h.world.mu.Lock()
				h.bandwidth, h.forget = reply.Bandwidth, reply.Forget
				h.world.mu.Unlock()
			}
			cancel()
			if err == nil {
				break
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// api is the operator's way to one coordinator.
func (c *cluster) api(name string) api.Coordinator {
	return api.NewClient(c.pool.HTTP(name+":7201", pki.Coordinator(name).String()))
}

// leader is the coordinator that leads, nil if none does.
func (c *cluster) leader() *member {
	for _, m := range c.coordinators {
		if m.lead.Load() != nil {
			return m
		}
	}
	return nil
}

// any is the operator's way to some coordinator that runs, not the leader if another one does.
func (c *cluster) any() api.Coordinator {
	c.t.Helper()
	var name string
	c.waitFor("somebody leads", func() bool { return c.leader() != nil })
	for n, m := range c.coordinators {
		if name == "" || m.lead.Load() == nil {
			name = n
		}
	}
	return c.api(name)
}

// kill ends a coordinator as a crash would: nobody hears from it again.
func (c *cluster) kill(m *member) {
	m.killed.Store(true)
	c.net.Kill(m.cfg.Name)
	m.stop()
	delete(c.coordinators, m.cfg.Name)
}

// waitFor waits until ok, for at most two minutes of the bubble.
func (c *cluster) waitFor(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) { //nolint:forbidigo // a condition, in a bubble's time
		if time.Now().After(end) {
			c.t.Fatalf("in two minutes it did not come about that %s", what)
		}
	}
}

// run starts a workload on a host.
func (c *cluster) run(name, host string) {
	c.t.Helper()
	spec := workload.Spec{Name: name, Kind: workload.Run, Command: []string{"redis-server"}}
	must(c.any().Run(c.t.Context(), api.RunRequest{Spec: spec, Host: host}))(c.t)
}

// migrate begins a migration.
func (c *cluster) migrate(name, to string, o workerapi.MoveOptions) api.Migration {
	c.t.Helper()
	return must(c.any().Migrate(c.t.Context(), api.MigrateRequest{Workload: name, To: to, Options: o}))(c.t)
}

// finish waits for a migration's end, over whatever changes of leader.
func (c *cluster) finish(id migration.ID) api.Migration {
	c.t.Helper()
	var last api.Migration
	c.waitFor("migration "+string(id)+" ends", func() bool {
		err := c.any().WatchMigration(c.t.Context(), id, func(m api.Migration) error { last = m; return nil })
		return err == nil
	})
	return last
}

// reaches waits until a migration has reached a phase.
func (c *cluster) reaches(id migration.ID, p migration.Phase) {
	c.t.Helper()
	done := errors.New("it has")
	c.waitFor("migration is "+string(p), func() bool {
		err := c.any().WatchMigration(c.t.Context(), id, func(m api.Migration) error {
			if slices.ContainsFunc(m.Transitions, func(t api.Transition) bool { return t.Phase == p }) {
				return done
			}
			return nil
		})
		return errors.Is(err, done)
	})
}

func (c *cluster) close() {
	for _, h := range c.world.hosts {
		if h.stop != nil {
			h.stop()
		}
	}
	for _, m := range c.coordinators {
		m.stop()
	}
	c.pool.Close()
}

// wantKind fails the test unless err is of that kind.
func wantKind(t *testing.T, what string, err error, want errs.Kind) {
	t.Helper()
	if err == nil || errs.KindOf(err) != want {
		t.Errorf("%s: got %v, want an error of the kind %s", what, err, want)
	}
}
