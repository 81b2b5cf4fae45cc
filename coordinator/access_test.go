package coordinator

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/internal/workload"
	"drover/transfer/link"
	workerapi "drover/worker/api"
)

// person makes a key and the way of whoever has it to a coordinator.
func (c *cluster) person(name string) (key string, way func(coordinator string) api.Coordinator, hangUp func()) {
	c.t.Helper()
	key, pool := c.keyed(name)
	way = func(co string) api.Coordinator {
		return api.NewClient(pool.HTTP(co+":7201", pki.Coordinator(co).String()))
	}
	return key, way, func() { pool.Close() }
}

// keyed makes a key and a pool of connections that show it.
func (c *cluster) keyed(name string) (key string, pool *link.Pool) {
	c.t.Helper()
	k := must(pki.NewKey())(c.t)
	file := filepath.Join(c.t.TempDir(), name)
	if err := os.WriteFile(file, must(k.PEM())(c.t), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return pki.Format(k.PublicKey()), link.NewPoolFor(link.AsOperator(c.authority.Trust(), file), link.WithDial(c.net.From("desk")))
}

func TestAnUnknownKeyGetsNothing(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		_, stranger, hangUp := c.person("stranger")
		defer hangUp()
		_, err := stranger("c1").Cluster(t.Context())
		wantKind(t, "a stranger's look", err, errs.Forbidden)
	})
}

func TestEachRoleMayDoWhatItsLevelAllows(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		for level, allowed := range map[string]map[string]bool{
			"viewer":   {"look": true},
			"operator": {"look": true, "cordon": true},
			"admin":    {"look": true, "cordon": true, "token": true},
		} {
			key, way, hangUp := c.person(level)
			if err := c.any().SetOperator(t.Context(), api.Operator{Name: level, Key: key, Role: level}); err != nil {
				t.Fatal(err)
			}
			for name := range c.coordinators { // the leader, and followers that pass the call on
				c.waitFor(name+" knows the key", func() bool {
					_, err := way(name).Hosts(t.Context())
					return err == nil
				})
				_, cordon := way(name).Cordon(t.Context(), "alpha", false)
				_, token := way(name).NewToken(t.Context(), "worker", time.Hour)
				_, heartbeat := way(name).Heartbeat(t.Context(), api.Heartbeat{Facts: workerapi.HostFacts{Name: "alpha"}})
				_, join := way(name).Join(t.Context(), api.JoinRequest{})
				for what, err := range map[string]error{"cordon": cordon, "token": token, "heartbeat": heartbeat, "join": join} {
					if allowed[what] && err != nil {
						t.Errorf("%s may not %s at %s: %v", level, what, name, err)
					}
					if !allowed[what] {
						wantKind(t, level+" does "+what+" at "+name, err, errs.Forbidden)
					}
				}
			}
			hangUp()
		}
	})
}

func TestARemovedOperatorAndHostAreShutOut(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		alpha := c.addHost("alpha")
		key, way, hangUp := c.person("eve")
		defer hangUp()
		for _, role := range []string{"admin", ""} {
			if err := c.any().SetOperator(t.Context(), api.Operator{Name: "eve", Key: key, Role: role}); err != nil {
				t.Fatal(err)
			}
			_, err := way("c1").Hosts(t.Context())
			if (err == nil) != (role == "admin") {
				t.Errorf("as %q: %v", role, err)
			}
		}
		if err := c.any().RemoveHost(t.Context(), "alpha"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) //nolint:forbidigo // a bubble's time
		if hosts := must(c.any().Hosts(t.Context()))(t); len(hosts) != 0 {
			t.Errorf("after its removal the cluster has the hosts %v", hosts)
		}
		_ = alpha
	})
}

func TestAWorkerCannotSpeakForAnother(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		id, _ := c.enter("mallory", "worker", "mallory:7202")
		pool := link.NewPool(id, link.WithDial(c.net.From("mallory")))
		defer pool.Close()
		client := api.NewClient(pool.HTTP("c1:7201", "coordinator"))
		_, err := client.Heartbeat(t.Context(), api.Heartbeat{Facts: workerapi.HostFacts{Name: "alpha"}})
		wantKind(t, "mallory's heartbeat for alpha", err, errs.Forbidden)
		_, err = client.Cordon(t.Context(), "alpha", true)
		wantKind(t, "mallory's cordon", err, errs.Forbidden)
	})
}

func TestATokenLetsOneMachineIn(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		tok := must(c.any().NewToken(t.Context(), "worker", time.Minute))(t)
		parsed := must(pki.ParseToken(tok.Token))(t)
		join := func(name, role string, key string) error {
			pool := link.NewPoolFor(link.AsJoiner(parsed), link.WithDial(c.net.From(name)))
			defer pool.Close()
			_, err := api.NewClient(pool.HTTP("c1:7201", "coordinator")).Join(t.Context(),
				api.JoinRequest{Token: tok.Token, Name: name, Role: role, Address: name + ":7202", Key: key})
			return err
		}
		one, other := pki.Format(must(pki.NewKey())(t).PublicKey()), pki.Format(must(pki.NewKey())(t).PublicKey())
		wantKind(t, "a coordinator with a worker's token", join("c9", "coordinator", one), errs.Forbidden)
		if err := join("alpha", "worker", one); err != nil {
			t.Fatal(err)
		}
		if err := join("alpha", "worker", one); err != nil {
			t.Errorf("its reply lost, asked again: %v", err)
		}
		wantKind(t, "a second machine", join("beta", "worker", other), errs.Forbidden)
		time.Sleep(2 * time.Minute) //nolint:forbidigo // a bubble's time
		wantKind(t, "after it expired", join("alpha", "worker", one), errs.Forbidden)
	})
}

func TestWithoutAMajorityNothingIsDecidedAndSaidSoQuickly(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha").copyFor = 5 * time.Second
		c.addHost("beta")
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		old := c.leader()
		var others []string
		for name := range c.coordinators {
			if name != old.cfg.Name {
				c.net.Cut(old.cfg.Name, name)
				others = append(others, name)
			}
		}
		c.waitFor("the old leader knows", func() bool { return old.lead.Load() == nil })
		began := time.Now()
		_, err := c.api(old.cfg.Name).Verdict(t.Context(), id)
		wantKind(t, "a question for a verdict", err, errs.Unavailable)
		_, err = c.api(old.cfg.Name).Migrate(t.Context(), api.MigrateRequest{Workload: "redis", To: "beta"})
		wantKind(t, "a migration without a majority", err, errs.Unavailable)
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %s to say so", took)
		}
		if st, err := c.api(old.cfg.Name).Cluster(t.Context()); err != nil || st.Leader != "" {
			t.Errorf("the cluster's state: %+v, %v", st, err)
		}
		c.waitFor("the others have a leader", func() bool { return c.leader() != nil && c.leader() != old })
		if m := c.finish(id); m.Phase != migration.Done {
			t.Errorf("it ended %s: %s", m.Phase, m.Reason)
		}
		for _, name := range others {
			c.net.Heal(old.cfg.Name, name)
		}
		c.waitFor("the old leader has learned", func() bool { return old.node.View().Migrations[id].Phase == migration.Done })
	})
}

func TestTheRecordSurvivesTheEndOfAllCoordinators(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta").copyFor = time.Hour
		c.run("redis", "alpha")
		id := c.migrate("redis", "beta", workerapi.MoveOptions{}).ID
		var configs []Config
		for _, m := range c.coordinators {
			configs = append(configs, m.cfg)
			m.stop()
		}
		for _, cfg := range configs {
			c.start(cfg)
		}
		if m := c.finish(id); m.Phase != migration.Done {
			t.Errorf("it ended %s: %s", m.Phase, m.Reason)
		}
		if st := must(c.any().Cluster(t.Context()))(t); st.Name != "test" || len(st.Coordinators) != 3 {
			t.Errorf("the cluster is %+v", st)
		}
	})
}

func TestWorkloadsComeAndGo(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		alpha := c.addHost("alpha")
		ctx := t.Context()
		c.run("redis", "")
		_, err := c.any().Run(ctx, api.RunRequest{Spec: workload.Spec{Name: "redis", Kind: workload.Run, Command: []string{"x"}}, Host: "alpha"})
		wantKind(t, "a second redis", err, errs.Conflict)
		_, err = c.any().Run(ctx, api.RunRequest{Spec: workload.Spec{Name: "other", Kind: workload.Run, Command: []string{"x"}}, Host: "nowhere"})
		wantKind(t, "an unknown host", err, errs.NotFound)
		c.world.fail(fault{host: "alpha", call: "Start", err: errs.New(errs.Failed, "no such program")})
		_, err = c.any().Run(ctx, api.RunRequest{Spec: workload.Spec{Name: "bad", Kind: workload.Run, Command: []string{"x"}}, Host: "alpha"})
		wantKind(t, "a program that does not start", err, errs.Failed)
		_, err = c.any().Workload(ctx, "bad")
		wantKind(t, "what did not start", err, errs.NotFound)
		_, err = c.any().Migrate(ctx, api.MigrateRequest{Workload: "redis", To: "alpha"})
		wantKind(t, "a move to where it is", err, errs.Invalid)
		if w := must(c.any().Stop(ctx, "redis", 0, 0))(t); w.Status.State != workload.Exited {
			t.Errorf("stopped, it is %s", w.Status.State)
		}
		if w := must(c.any().Restore(ctx, "redis", "alpha", "/images", ""))(t); w.Epoch != 2 || w.Status.State != workload.Running {
			t.Errorf("restored, it is %s at epoch %d", w.Status.State, w.Epoch)
		}
		if err := c.any().Remove(ctx, "redis", api.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
		if len(alpha.trees) != 0 || len(must(c.any().Workloads(ctx))(t)) != 0 {
			t.Error("something of redis is left")
		}
	})
}

func TestTheDoctorsNoRefusesBeforeAnythingIsTouched(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		alpha, beta := c.addHost("alpha"), c.addHost("beta")
		c.run("redis", "alpha")
		beta.findings = []workerapi.Finding{{Check: "ports", Host: "beta", Verdict: workerapi.NoGo, Detail: "port 6379 is taken by nginx", Mend: "stop nginx"}}
		_, err := c.any().Migrate(t.Context(), api.MigrateRequest{Workload: "redis", To: "beta"})
		wantKind(t, "a NO-GO", err, errs.Refused)
		if errs.NextOf(err) != "stop nginx" {
			t.Errorf("what to do next: %q", errs.NextOf(err))
		}
		if len(alpha.sessions)+len(beta.sessions) != 0 || len(must(c.any().Migrations(t.Context(), ""))(t)) != 0 {
			t.Error("something was touched")
		}
		if r := must(c.any().Doctor(t.Context(), "redis", "beta"))(t); r.Verdict != workerapi.NoGo || len(r.Findings) != 1 {
			t.Errorf("the doctor says %+v", r)
		}
		gamma := c.addHost("gamma")
		if m := c.migrate("redis", anywhere, workerapi.MoveOptions{}); m.Target != gamma.name {
			t.Errorf("anywhere is %s", m.Target)
		}
	})
}
