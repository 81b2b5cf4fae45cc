package host_test

import (
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

// connect opens a TCP connection from alpha to an echoing listener on beta.
func connect(t *testing.T, alpha, beta *host.Host, serve func(net.Conn)) net.Conn {
	t.Helper()
	l, err := beta.Listen(t.Context(), "tcp", "10.77.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			serve(c)
		}
	}()
	c, err := alpha.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// throughput sends for the time and returns what arrived, in bits per second of payload, and the processor time it took.
func throughput(t *testing.T, alpha, beta *host.Host, send time.Duration) (rate float64, cpu time.Duration) {
	t.Helper()
	type arrival struct {
		bytes int64
		at    time.Time
	}
	arrived := make(chan arrival, 1)
	c := connect(t, alpha, beta, func(c net.Conn) {
		n, _ := io.Copy(io.Discard, c)
		arrived <- arrival{n, time.Now()}
	})
	block := make([]byte, 256<<10)
	started, cpuAtStart := time.Now(), cpuTime(t)
	for time.Since(started) < send {
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	a := <-arrived
	return float64(a.bytes) * 8 / a.at.Sub(started).Seconds(), cpuTime(t) - cpuAtStart
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// shortestTrip is the shortest of some round trips of one byte.
func shortestTrip(t *testing.T, alpha, beta *host.Host) time.Duration {
	t.Helper()
	c := connect(t, alpha, beta, func(c net.Conn) { _, _ = io.Copy(c, c) })
	best := time.Duration(math.MaxInt64)
	b := make([]byte, 1)
	for range 30 {
		started := time.Now()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(started))
	}
	c.Close()
	return best
}

// TestShapedLinkHasItsRateAndDelay holds a link to both at every look. That it carries nearly its rate, with nearly its delay, is
// seen once the machine lets it.
func TestShapedLinkHasItsRateAndDelay(t *testing.T) {
	bed := hosttest.Bed(t, "alpha", "beta")
	alpha, beta := bed.Hosts()[0], bed.Hosts()[1]
	for _, c := range []struct {
		name     string
		shape    host.Shape
		rate     [2]float64 // of payload, Mbit/s: reached, never more
		trip     time.Duration
		tripMore time.Duration
	}{
		{"none", host.Shape{}, [2]float64{2000, math.Inf(1)}, 0, 2 * time.Millisecond},
		{"1 Gbit/s, 0.5 ms", host.Shape{Rate: host.Gbit, Delay: 500 * time.Microsecond}, [2]float64{700, 950}, time.Millisecond, time.Millisecond},
		{"50 Mbit/s, 10 ms", host.Shape{Rate: 50 * host.Mbit, Delay: 10 * time.Millisecond}, [2]float64{35, 48}, 20 * time.Millisecond, 3 * time.Millisecond},
		{"none again", host.Shape{}, [2]float64{2000, math.Inf(1)}, 0, 2 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := bed.Link("beta").Set(c.shape); err != nil {
				t.Fatal(err)
			}
			hosttest.Eventually(t, fmt.Sprintf("a round trip of at most %s more than %s", c.tripMore, c.trip), func() bool {
				trip := shortestTrip(t, alpha, beta)
				t.Logf("shortest round trip %s", trip)
				if trip < c.trip {
					t.Fatalf("round trip %s, want at least %s", trip, c.trip)
				}
				return trip <= c.trip+c.tripMore
			})
			hosttest.Eventually(t, fmt.Sprintf("%.0f Mbit/s of payload", c.rate[0]), func() bool {
				rate, cpu := throughput(t, alpha, beta, time.Second)
				t.Logf("%.0f Mbit/s of payload, %s of processor time a second", rate/1e6, cpu)
				if rate > c.rate[1]*1e6 {
					t.Fatalf("%.1f Mbit/s, want at most %.0f", rate/1e6, c.rate[1])
				}
				return rate >= c.rate[0]*1e6
			})
		})
	}
}

func TestLossyLinkLosesItsPart(t *testing.T) {
	bed := hosttest.Bed(t, "alpha", "beta")
	alpha, beta := bed.Hosts()[0], bed.Hosts()[1]
	in, err := beta.ListenPacket(t.Context(), "udp", "10.77.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := bed.Link("beta").Set(host.Shape{Loss: 0.25}); err != nil {
		t.Fatal(err)
	}
	out, err := alpha.Dial(t.Context(), "udp", in.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	const sent = 4000
	received := 0
	b := make([]byte, 16)
	for range sent { // one at a time, so that nothing is lost for want of room
		if _, err := out.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := in.SetReadDeadline(time.Now().Add(3 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := in.ReadFrom(b); err == nil {
			received++
		} else if !os.IsTimeout(err) {
			t.Fatal(err)
		}
	}
	if lost := 1 - float64(received)/sent; lost < 0.20 || lost > 0.32 {
		t.Errorf("lost %.3f, want about 0.25", lost)
	}
}

func TestCutLinkIsSilentAndHealsWithItsConnections(t *testing.T) {
	bed := hosttest.Bed(t, "alpha", "beta")
	alpha, beta := bed.Hosts()[0], bed.Hosts()[1]
	for _, shape := range []host.Shape{{}, {Rate: host.Gbit, Delay: time.Millisecond}} {
		link := bed.Link("alpha")
		if err := link.Set(shape); err != nil {
			t.Fatal(err)
		}
		c := connect(t, alpha, beta, func(c net.Conn) { _, _ = io.Copy(c, c) })
		if err := link.Cut(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
			t.Fatalf("%+v: over a cut link came %v", shape, err)
		}
		if carrier := hosttest.Run(t, alpha, "cat", "/sys/class/net/eth0/carrier"); carrier != "1" {
			t.Errorf("%+v: the cut took the carrier", shape)
		}
		if err := link.Heal(); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatalf("%+v: after the link healed: %v", shape, err)
		}
		c.Close()
	}
}

func TestMacvlanOnEth0ReachesTheSegment(t *testing.T) {
	bed := hosttest.Bed(t, "alpha", "beta")
	alpha, beta := bed.Hosts()[0], bed.Hosts()[1]
	hosttest.Run(t, alpha, "sh", "-ec", `ip netns add w
		ip link add w0 link eth0 type macvlan mode bridge
		ip link set w0 netns w name eth0
		ip -n w addr add 10.77.0.50/24 dev eth0
		ip -n w link set eth0 up`)
	for _, shape := range []host.Shape{{}, {Rate: host.Gbit, Delay: 500 * time.Microsecond}, {}} {
		if err := bed.Link("alpha").Set(shape); err != nil {
			t.Fatal(err)
		}
		hosttest.Run(t, beta, "ping", "-c2", "-i0.2", "-W2", "10.77.0.50")
		hosttest.Run(t, alpha, "ip", "netns", "exec", "w", "ping", "-c1", "-W2", "10.77.0.2")
	}
}
