package consensus

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"drover/coordinator/record"
	"drover/transfer/transfertest"
)

// three is a cluster of nodes with their logs on the disk of this machine, and half a millisecond from each to each other.
func three(b *testing.B) (network *transfertest.Network, nodes map[string]*Node) {
	b.Helper()
	network = transfertest.NewNetwork()
	network.Delay(500 * time.Microsecond)
	nodes = map[string]*Node{}
	for _, name := range []string{"c1", "c2", "c3"} {
		p := Peer{Name: name, Address: name + ":1"}
		listener, err := network.Listen(p.Address)
		if err != nil {
			b.Fatal(err)
		}
		from := network.From(name)
		n, err := Open(Config{Self: p, Dir: b.TempDir(), Listener: listener, Log: slog.New(slog.DiscardHandler),
			Dial: func(ctx context.Context, p Peer) (net.Conn, error) { return from(ctx, p.Address) }})
		if err != nil {
			b.Fatal(err)
		}
		nodes[name] = n
	}
	first := nodes["c1"]
	if err := first.Found(b.Context(), record.Found{Cluster: "bench", Name: "c1", Address: "c1:1"}); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"c2", "c3"} {
		if err := first.Promote(b.Context(), Peer{name, name + ":1"}); err != nil {
			b.Fatal(err)
		}
	}
	return network, nodes
}

func decide(ctx context.Context, n *Node, what string) error {
	_, err := n.Propose(ctx, "bench", record.TokenNew{Hash: what, Role: "worker", Expires: time.Now().Add(time.Hour)})
	return err
}

func report(b *testing.B, took []time.Duration, unit string) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e6, "ms/"+unit)
	b.ReportMetric(float64(took[len(took)*99/100])/1e6, "ms-p99/"+unit)
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRaftsPartOfTheBlackout is the two rounds that a tree stands still for: the freeze that is granted, and the verdict.
func BenchmarkRaftsPartOfTheBlackout(b *testing.B) {
	_, nodes := three(b)
	var took []time.Duration
	for b.Loop() {
		for i := range 200 {
			began := time.Now()
			for _, round := range []string{"freeze", "verdict"} {
				if err := decide(b.Context(), nodes["c1"], fmt.Sprint(round, i, len(took), began.UnixNano())); err != nil {
					b.Fatal(err)
				}
			}
			took = append(took, time.Since(began))
		}
	}
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			b.Error(err)
		}
	}
	report(b, took, "cut-over")
}

// BenchmarkTheNextDecisionAfterTheLeaderDied is from the instant at which nobody hears of the leader any more to the next entry that a majority
// has.
func BenchmarkTheNextDecisionAfterTheLeaderDied(b *testing.B) {
	var took []time.Duration
	for b.Loop() {
		for range 5 {
			network, nodes := three(b)
			for i := range 5 { // the others know who leads
				if err := decide(b.Context(), nodes["c1"], fmt.Sprint(i)); err != nil {
					b.Fatal(err)
				}
			}
			began := time.Now()
			network.Cut("c1", "c2")
			network.Cut("c1", "c3")
			for decided := false; !decided; {
				for _, name := range []string{"c2", "c3"} {
					decided = decided || decide(b.Context(), nodes[name], "next") == nil
				}
				select {
				case <-time.After(time.Millisecond):
				case <-b.Context().Done():
					b.Fatal("nobody decides")
				}
			}
			took = append(took, time.Since(began))
			for _, n := range nodes {
				_ = n.Close() // c1 can hand nothing over
			}
		}
	}
	report(b, took, "decision")
}
