package bench

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
	"drover/testenv/redisload"
)

const (
	address = "10.77.0.50"
	data    = 200 << 20
	writes  = 5000 // a second
	moves   = 5
)

// gigabit is a link of 1 Gbit/s; two of them make a way of 0.5 ms.
var gigabit = host.Shape{Rate: host.Gbit, Delay: 250 * time.Microsecond}

// BenchmarkBlackout moves a redis of 200 MB under 5,000 writes a second between hosts joined by 1 Gbit/s with 0.5 ms delay,
// while a client counts over one connection.
func BenchmarkBlackout(b *testing.B) {
	machine(b)
	c, client := newCluster(b)
	dial := func() net.Conn { return dialRedis(b, client, address) }
	filled := dial()
	keys, err := redisload.Fill(b.Context(), filled, data)
	if err != nil {
		b.Fatal(err)
	}
	for _, h := range c.Bed.Hosts() {
		if err := h.Link().Set(gigabit); err != nil {
			b.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	wrote := make(chan error, 1)
	go func() { wrote <- redisload.Write(ctx, filled, keys, writes) }()
	counter := redisload.Count(dial(), "counter")

	var blackouts, gaps, freezes []time.Duration
	for b.Loop() {
		for i := range moves {
			to := c.Workers[(i+1)%2].Name
			counter.ResetGap()
			m, err := c.Migrate(b.Context(), nil, "redis", to)
			if err != nil {
				b.Fatal(err)
			}
			seen, err := counter.Next(b.Context())
			if err != nil {
				b.Fatalf("the connection broke: %v", err)
			}
			final := m.Progress.Rounds[len(m.Progress.Rounds)-1]
			b.Logf("move %d to %s: blackout %s (predicted %s), longest gap %s, %d rounds, final pass %s with %d pages in %d bytes",
				i+1, to, m.Blackout.Round(time.Millisecond), m.Downtime.Predicted.Round(time.Millisecond), seen.LongestGap, len(m.Progress.Rounds)-1, final.Took, final.PagesSent, final.WireBytes)
			b.Logf("         %s", phases(m))
			blackouts, gaps, freezes = append(blackouts, m.Blackout), append(gaps, seen.LongestGap), append(freezes, final.Took)
		}
	}
	stop()
	if err := <-wrote; err != nil {
		b.Fatal(err)
	}
	seen, err := counter.Stop()
	if err != nil || seen.Lost > 0 || seen.Repeated > 0 {
		b.Fatalf("the client saw %+v, %v", seen, err)
	}
	b.ReportMetric(median(blackouts), "ms/blackout")
	b.ReportMetric(median(gaps), "ms/gap")
	b.ReportMetric(median(freezes), "ms/final-pass")
	b.ReportMetric(float64(seen.Requests), "requests")
}

// phases says when, counted from the leave to freeze, the record had each phase.
func phases(m api.Migration) string {
	var from time.Time
	var out []string
	for _, t := range m.Transitions {
		if t.Phase == migration.Frozen {
			from = t.Time
		}
		if !from.IsZero() {
			out = append(out, fmt.Sprintf("%s %s", t.Phase, t.Time.Sub(from).Round(time.Millisecond)))
		}
	}
	return strings.Join(out, ", ")
}

// BenchmarkRefusal asks for a move that the target refuses, and takes the time until the operator's command has said so.
func BenchmarkRefusal(b *testing.B) {
	c, client := newCluster(b)
	dialRedis(b, client, address).Close()
	target := c.Workers[1]
	const program = "/usr/bin/redis-check-rdb" // redis-server is a link to it
	hosttest.Run(b, target.Host, "mv", program, program+".away")
	before, err := c.Workload(b.Context(), "redis")
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		for range moves {
			began := time.Now()
			_, err := c.Drover(b.Context(), "migrate", "redis", "--to", target.Name)
			took = append(took, time.Since(began))
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("exit status %d", errs.Refused.ExitCode())) {
				b.Fatalf("not refused: %v", err)
			}
		}
	}
	after, err := c.Workload(b.Context(), "redis")
	if err != nil || after.Owner != before.Owner || after.Status.Pid != before.Status.Pid || after.Epoch != before.Epoch {
		b.Fatalf("the refusals changed something: %+v, then %+v, %v", before, after, err)
	}
	b.ReportMetric(median(took), "ms/refusal")
}

// newCluster makes the hosts and a redis on the first worker.
func newCluster(b *testing.B) (*cluster.Cluster, *host.Host) {
	b.Helper()
	c, client := newHosts(b)
	if _, err := c.Drover(b.Context(), "run", "redis", "--host", "alpha", "--address", address+"/24", "--",
		"redis-server", "--save", "", "--appendonly", "no", "--bind", "0.0.0.0", "--protected-mode", "no"); err != nil {
		b.Fatal(err)
	}
	return c, client
}

// newHosts makes a cluster of three coordinators and two workers, and a host for the client.
func newHosts(b *testing.B) (*cluster.Cluster, *host.Host) {
	b.Helper()
	bed := hosttest.Bed(b)
	c, err := cluster.New(b.Context(), bed, cluster.Options{
		Drover: hosttest.Build(b, "./cmd/drover"), Coordinators: []string{"ceres", "pallas", "vesta"}, Workers: []string{"alpha", "beta"},
		Args: []string{"--keep-store", "0s"}, // every move is to a host that has no page of the tree
	})
	if err != nil {
		b.Fatal(err)
	}
	client, err := bed.Host(b.Context(), "client", host.Options{Address: "10.77.0.99/24"})
	if err != nil {
		b.Fatal(err)
	}
	return c, client
}

// median is in milliseconds.
func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2]) / float64(time.Millisecond)
}
