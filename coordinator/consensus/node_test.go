package consensus

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/transfer/transfertest"
)

// lab is nodes on a network in memory.
type lab struct {
	t   *testing.T
	net *transfertest.Network
}

func (l lab) open(name, dir string) *Node {
	l.t.Helper()
	p := Peer{Name: name, Address: name + ":1"}
	listener, err := l.net.Listen(p.Address)
	if err != nil {
		l.t.Fatal(err)
	}
	from := l.net.From(name)
	n, err := Open(Config{Self: p, Dir: dir, Listener: listener, Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, p Peer) (net.Conn, error) { return from(ctx, p.Address) }})
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

func (l lab) waitFor(what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // a condition, in a bubble's time
		if time.Now().After(end) {
			l.t.Fatalf("in a minute it did not come about that %s", what)
		}
	}
}

// found makes n a cluster with k hosts in its record.
func (l lab) found(n *Node, k int) {
	l.t.Helper()
	ctx := l.t.Context()
	if err := n.Found(ctx, record.Found{Cluster: "test", Name: n.self.Name, Address: n.self.Address}); err != nil {
		l.t.Fatal(err)
	}
	for i := range k {
		l.token(n, fmt.Sprint(i))
	}
}

func (l lab) token(n *Node, hash string) {
	l.t.Helper()
	if _, err := n.Propose(l.t.Context(), "test", record.TokenNew{Hash: hash, Role: "worker", Expires: time.Now().Add(time.Hour)}); err != nil {
		l.t.Fatal(err)
	}
}

func tokens(n *Node) int { return len(n.View().Tokens) }

func inBubble(t *testing.T, f func(l lab)) {
	synctest.Test(t, func(t *testing.T) { f(lab{t, transfertest.NewNetwork()}) })
}

func TestTheRecordOutlivesTheProcess(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprintf("snapshot %v", snapshot), func(t *testing.T) {
			inBubble(t, func(l lab) {
				dir := l.t.TempDir()
				n := l.open("c1", dir)
				l.found(n, 5)
				if snapshot {
					if err := n.raft.Snapshot().Error(); err != nil {
						t.Fatal(err)
					}
					l.token(n, "after")
				}
				before := tokens(n)
				if err := n.Close(); err != nil {
					t.Fatal(err)
				}
				n = l.open("c1", dir)
				defer n.Close()
				l.waitFor("it leads with its record", func() bool { return n.Leads() && n.Fresh(l.t.Context()) == nil })
				if tokens(n) != before || n.cluster() != "test" {
					t.Errorf("it has %d tokens of %d and is called %q", tokens(n), before, n.cluster())
				}
				if err := n.Found(l.t.Context(), record.Found{Cluster: "other", Name: "c1", Address: "c1:1"}); err != nil || n.cluster() != "test" {
					t.Errorf("founded again (%v), it is called %q", err, n.cluster())
				}
			})
		})
	}
}

func TestANewMemberGetsASnapshotAndThenAVote(t *testing.T) {
	inBubble(t, func(l lab) {
		c1 := l.open("c1", l.t.TempDir())
		defer c1.Close()
		l.found(c1, 20)
		if err := c1.AddListener(l.t.Context(), Peer{"c2", "c2:1"}); err != nil {
			t.Fatal(err)
		}
		l.token(c1, "c2 is not up and costs no majority")
		c2 := l.open("c2", l.t.TempDir())
		defer c2.Close()
		l.waitFor("c2 has the record", func() bool { return tokens(c2) == tokens(c1) })
		if err := c1.Promote(l.t.Context(), Peer{"c2", "c2:1"}); err != nil {
			t.Fatal(err)
		}
		_, err := c2.Propose(l.t.Context(), "test", record.HostCordon{Name: "a"})
		if errs.KindOf(err) != errs.Unavailable {
			t.Errorf("a follower's proposal: %v", err)
		}
		if err := c2.Fresh(l.t.Context()); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("a follower is fresh: %v", err)
		}
		if leader := c2.Leader(); leader != (Peer{"c1", "c1:1"}) {
			t.Errorf("c2 knows the leader %+v", leader)
		}
		if err := c1.Expel(l.t.Context(), Peer{"c2", "c2:1"}); err != nil || len(c1.Servers()) != 1 {
			t.Errorf("after it was expelled there are %v: %v", c1.Servers(), err)
		}
	})
}

func TestALeaderWithoutAMajorityKnowsItSoon(t *testing.T) {
	inBubble(t, func(l lab) {
		nodes := map[string]*Node{}
		for _, name := range []string{"c1", "c2", "c3"} {
			nodes[name] = l.open(name, l.t.TempDir())
			defer nodes[name].Close()
		}
		l.found(nodes["c1"], 1)
		for _, name := range []string{"c2", "c3"} {
			if err := nodes["c1"].Promote(l.t.Context(), Peer{name, name + ":1"}); err != nil {
				t.Fatal(err)
			}
		}
		l.waitFor("both know of each other", func() bool { return len(nodes["c2"].Servers()) == 3 && len(nodes["c3"].Servers()) == 3 })
		l.net.Cut("c1", "c2")
		l.net.Cut("c1", "c3")
		began := time.Now()
		_, err := nodes["c1"].Propose(l.t.Context(), "test", record.TokenNew{Hash: "lost", Role: "worker", Expires: began.Add(time.Hour)})
		if errs.KindOf(err) != errs.Unavailable || time.Since(began) > 2*time.Second {
			t.Errorf("after %s it says %v", time.Since(began), err)
		}
		if err := nodes["c1"].Fresh(l.t.Context()); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("cut off, it is fresh: %v", err)
		}
		var next *Node
		l.waitFor("another one leads", func() bool {
			for _, name := range []string{"c2", "c3"} {
				if nodes[name].Leads() {
					next = nodes[name]
				}
			}
			return next != nil
		})
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the next leader took %s", took)
		}
		l.token(next, "kept")
		l.net.Heal("c1", "c2")
		l.net.Heal("c1", "c3")
		l.waitFor("all agree", func() bool {
			return tokens(nodes["c1"]) == 2 && tokens(nodes["c2"]) == 2 && tokens(nodes["c3"]) == 2
		})
	})
}

func TestTwoProcessesCannotShareADirectory(t *testing.T) {
	dir := t.TempDir()
	network := transfertest.NewNetwork()
	n := lab{t, network}.open("c1", dir)
	defer n.Close()
	listener, err := network.Listen("c1:2")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, err = Open(Config{Self: Peer{"c1", "c1:2"}, Dir: dir, Listener: listener, Log: slog.New(slog.DiscardHandler)})
	if err == nil || errs.NextOf(err) == "" {
		t.Errorf("a second node opened the same log: %v", err)
	}
}

func TestTheRecordIsForItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "record")
	n := lab{t, transfertest.NewNetwork()}.open("c1", dir)
	defer n.Close()
	for file, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "raft.db"): 0o600} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v)", file, info.Mode().Perm(), err)
		}
	}
}
