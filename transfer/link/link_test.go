package link_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
	"drover/transfer/transfertest"
)

// cluster is an authority and a network in memory on which identities are hosts.
type cluster struct {
	t         testing.TB
	authority *pki.Authority
	net       *transfertest.Network
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	a, err := pki.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t, a, transfertest.NewNetwork()}
}

func (c *cluster) identity(p pki.Principal) *pki.Identity {
	c.t.Helper()
	id, err := c.authority.NewIdentity(p, 24*time.Hour)
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// serve runs a server for p at "name:1" until the test or stop ends it.
func (c *cluster) serve(p pki.Principal, o link.Options) (s *link.Server, stop func()) {
	c.t.Helper()
	l, err := c.net.Listen(p.Name + ":1")
	if err != nil {
		c.t.Fatal(err)
	}
	o.Log = slog.New(slog.DiscardHandler)
	s = link.NewServer(c.identity(p), o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, l); err != nil {
			c.t.Errorf("serve: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	c.t.Cleanup(stop)
	return s, stop
}

// pool dials from the host "client".
func (c *cluster) pool(cred link.Credentials) *link.Pool {
	p := link.NewPoolFor(cred, link.WithDial(c.net.From("client")))
	c.t.Cleanup(func() { p.Close() })
	return p
}

func (c *cluster) as(p pki.Principal) *link.Pool { return c.pool(link.AsDaemon(c.identity(p))) }

func all(pki.Principal) bool { return true }

// echo answers every channel with what comes.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

func exchange(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("write: %v", err)
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v", b, err)
	}
}

func TestAWorkerReachesAnotherAndEachKnowsWhoItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s, stop := c.serve(pki.Worker("beta"), link.Options{})
		l := s.Listener(link.ChannelPages, func(p pki.Principal) bool { return p == pki.Worker("alpha") })
		pool := c.as(pki.Worker("alpha"))
		conn, err := pool.Open(t.Context(), "beta:1", "worker:beta", link.ChannelPages)
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if p, _ := link.PeerOf(far); p != pki.Worker("alpha") {
			t.Errorf("the server sees %v", p)
		}
		if p, _ := link.PeerOf(conn); p != pki.Worker("beta") {
			t.Errorf("the client sees %v", p)
		}
		go func() { defer far.Close(); io.Copy(far, far) }()
		exchange(t, conn, "hello")
		conn.Close()
		pool.Close()
		stop()
	})
}

func TestWhoIsLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		alice, mallory := newKey(t), newKey(t)
		token, err := pki.NewToken(c.authority.PublicKey(), []string{"c1:1"})
		if err != nil {
			t.Fatal(err)
		}
		removed := pki.Worker("gone")
		s, stop := c.serve(pki.Coordinator("c1"), link.Options{
			Keys: func(k ssh.PublicKey) (pki.Principal, bool) {
				return pki.Principal{Role: pki.RoleOperator, Name: "alice", Level: pki.LevelAdmin}, pki.SameKey(k, alice.PublicKey())
			},
			Token: func(secret string) (pki.Principal, bool) {
				return pki.Principal{Role: pki.RoleJoin, Name: "t1", Level: pki.RoleWorker}, pki.HashSecret(secret) == token.Hash()
			},
			Removed: func(p pki.Principal) bool { return p == removed },
		})
		go echo(s.Listener(link.ChannelAPI, func(p pki.Principal) bool { return p.Role != pki.RoleCoordinator }))
		stranger := newCluster(t)
		wrong := token
		wrong.Secret = "AAAA" + wrong.Secret[4:]
		ca := c.authority.Trust()
		for _, row := range []struct {
			who  string
			cred link.Credentials
			host string
			kind errs.Kind // 0: let in
		}{
			{"a worker", link.AsDaemon(c.identity(pki.Worker("alpha"))), "coordinator:c1", 0},
			{"a worker that knows only the role", link.AsDaemon(c.identity(pki.Worker("alpha"))), "coordinator", 0},
			{"an operator with a key", link.AsOperator(ca, keyFile(t, alice)), "coordinator", 0},
			{"a token's holder", link.AsJoiner(token), "coordinator", 0},
			{"a token that was never given out", link.AsJoiner(wrong), "coordinator", errs.Forbidden},
			{"an unknown key", link.AsOperator(ca, keyFile(t, mallory)), "coordinator", errs.Forbidden},
			{"a removed worker", link.AsDaemon(c.identity(removed)), "coordinator", errs.Forbidden},
			{"one whom the channel's rule refuses", link.AsDaemon(c.identity(pki.Coordinator("c2"))), "coordinator", errs.Forbidden},
			{"another cluster's worker", link.AsDaemon(stranger.identity(pki.Worker("alpha"))), "coordinator", errs.Forbidden},
			{"an operator who trusts another cluster", link.AsOperator(stranger.authority.Trust(), keyFile(t, alice)), "coordinator", errs.Forbidden},
			{"one who looks for another coordinator", link.AsDaemon(c.identity(pki.Worker("alpha"))), "coordinator:c2", errs.Forbidden},
			{"one who looks for a worker there", link.AsDaemon(c.identity(pki.Worker("alpha"))), "worker:c1", errs.Forbidden},
			{"one who names no role", link.AsDaemon(c.identity(pki.Worker("alpha"))), "c1", errs.Invalid},
		} {
			pool := c.pool(row.cred)
			conn, err := pool.Open(t.Context(), "c1:1", row.host, link.ChannelAPI)
			switch {
			case row.kind == 0 && err != nil:
				t.Errorf("%s is refused: %v", row.who, err)
			case row.kind == 0:
				exchange(t, conn, "hello")
				conn.Close()
			case err == nil:
				t.Errorf("%s is let in", row.who)
			case errs.KindOf(err) != row.kind:
				t.Errorf("%s: got %v (%v)", row.who, err, errs.KindOf(err))
			}
			pool.Close()
		}
		stop()
	})
}

func newKey(t testing.TB) *pki.Key {
	t.Helper()
	k, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keyFile(t testing.TB, k *pki.Key) string {
	t.Helper()
	text, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAnOperatorsAgentSigns(t *testing.T) {
	c := newCluster(t)
	text, err := newKey(t).PEM()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: raw}); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "agent")
	al, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer al.Close()
	go func() {
		for {
			conn, err := al.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); agent.ServeAgent(ring, conn) }()
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", sock)
	keys, err := ring.List()
	if err != nil {
		t.Fatal(err)
	}
	s, _ := c.serve(pki.Coordinator("c1"), link.Options{Keys: func(k ssh.PublicKey) (pki.Principal, bool) {
		return pki.Principal{Role: pki.RoleOperator, Name: "alice", Level: pki.LevelViewer}, string(k.Marshal()) == string(keys[0].Blob)
	}})
	go echo(s.Listener(link.ChannelAPI, all))
	conn, err := c.pool(link.AsOperator(c.authority.Trust(), "")).Open(t.Context(), "c1:1", "coordinator", link.ChannelAPI)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn, "hello")
}

func TestATokenHolderShowsItsSecretToItsOwnClusterOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := newCluster(t), newCluster(t)
		var seen []string
		_, stop := theirs.serve(pki.Coordinator("c1"), link.Options{Token: func(secret string) (pki.Principal, bool) {
			seen = append(seen, secret)
			return pki.Principal{}, false
		}})
		token, err := pki.NewToken(ours.authority.PublicKey(), []string{"c1:1"})
		if err != nil {
			t.Fatal(err)
		}
		pool := theirs.pool(link.AsJoiner(token))
		if _, err := pool.Open(t.Context(), "c1:1", "coordinator", link.ChannelAPI); errs.KindOf(err) != errs.Forbidden {
			t.Errorf("got %v", err)
		}
		pool.Close()
		stop()
		if len(seen) > 0 {
			t.Error("the secret was given away")
		}
	})
}

func TestSilentStrangersDoNotKeepOthersOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s, stop := c.serve(pki.Worker("beta"), link.Options{MaxHandshakes: 8})
		go echo(s.Listener(link.ChannelAPI, all))
		var strangers []net.Conn
		for range 50 {
			raw, err := c.net.From("stranger")(t.Context(), "beta:1")
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			strangers = append(strangers, raw)
		}
		synctest.Wait()
		refused := 0
		for _, raw := range strangers {
			raw.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := io.ReadAll(raw); err == nil {
				refused++
			}
		}
		if refused != 48 {
			t.Errorf("%d of 50 strangers were hung up on, not 48: one address may take a quarter of 8 places", refused)
		}
		pool := c.as(pki.Worker("alpha"))
		conn, err := pool.Open(t.Context(), "beta:1", "worker:beta", link.ChannelAPI)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, conn, "hello")
		time.Sleep(11 * time.Second) //nolint:forbidigo // the strangers' time is over: their places are free again; a bubble's time
		raw, err := c.net.From("stranger")(t.Context(), "beta:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(raw, make([]byte, 4)); err != nil {
			t.Errorf("places are not given back: %v", err)
		}
		raw.Close()
		pool.Close()
		stop()
	})
}

func TestHTTPRunsOverAChannelAndKnowsItsPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s, stop := c.serve(pki.Worker("beta"), link.Options{})
		h := &http.Server{ConnContext: link.ConnContext, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, _ := link.PeerFrom(r.Context())
			fmt.Fprintf(w, "hello %s", p)
		})}
		go h.Serve(s.Listener(link.ChannelAPI, all))
		pool := c.as(pki.Coordinator("c1"))
		for range 3 {
			resp, err := pool.HTTP("beta:1", "worker:beta").Get("http://drover/")
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(b) != "hello coordinator:c1" {
				t.Errorf("got %q", b)
			}
		}
		if err := h.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		pool.Close()
		stop()
	})
}
