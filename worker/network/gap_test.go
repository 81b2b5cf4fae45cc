package network

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// BenchmarkGap measures how long a client waits for the answer to what it said just when a fence went up, by how long the fence
// stands and what it does with segments. The medians are those of docs/adr/0009:
//
//	go test -run '^$' -bench Gap -benchtime 10x ./worker/network
//
// "drop" is a fence that answers nothing. "last" sends, when the fence comes down, late ICMP errors for what it dropped.
func BenchmarkGap(b *testing.B) {
	for _, w := range families {
		for _, how := range []struct {
			name          string
			answers, last bool
		}{{"drop", false, false}, {"answer", true, false}, {"drop+last", false, true}, {"answer+last", true, true}} {
			if how.last && w.address.Addr().Is6() {
				continue
			}
			for _, blackout := range []time.Duration{
				300 * time.Millisecond, 650 * time.Millisecond, 800 * time.Millisecond, time.Second, 1500 * time.Millisecond,
			} {
				b.Run(fmt.Sprintf("%s/%s/%s", w.name, how.name, blackout), func(b *testing.B) {
					l := newLAN(b)
					l.host("client", w.client)
					l.host("alpha", w.alpha)
					g := gap{b, l, l.workload("alpha", "redis", Config{Address: w.address}), w.address.Addr(), how.answers, how.last}
					var seen []time.Duration
					for b.Loop() {
						client, server := g.connect()
						seen = append(seen, g.measure(client, server, blackout))
						client.Close()
						server.Close()
					}
					slices.Sort(seen)
					b.ReportMetric(float64(seen[len(seen)/2].Milliseconds()), "ms/gap")
					b.ReportMetric(float64(seen[len(seen)-1].Milliseconds()), "ms/longest")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}

type gap struct {
	b             *testing.B
	l             *lan
	ns            string
	addr          netip.Addr
	answers, last bool
}

// connect makes a connection with an echo at its other end.
func (g gap) connect() (client, server net.Conn) {
	ln := g.l.listen(g.ns, port(g.addr))
	defer ln.Close()
	client, err := g.l.dial(g.l.path("client"), port(g.addr), 5*time.Second)
	if err != nil {
		g.b.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		g.b.Fatal(err)
	}
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := server.Read(b); err != nil {
				return
			}
			if _, err := server.Write(b); err != nil {
				return
			}
		}
	}()
	for range 20 { // so that both ends know the round-trip time
		if ok, err := says(client, "x", 5*time.Second); !ok {
			g.b.Fatal(err)
		}
	}
	return client, server
}

func (g gap) measure(client, server net.Conn, blackout time.Duration) time.Duration {
	g.must(Fence(ctx, g.ns, g.addr))
	if !g.answers {
		silence(g.b, g.ns, g.addr)
	}
	began := time.Now()
	time.AfterFunc(blackout, func() {
		g.must(Unfence(ctx, g.ns, g.addr))
		if !g.answers {
			unsilence(g.b, g.ns)
		}
		g.must(Announce(ctx, g.ns, g.addr))
		if g.last {
			g.tellLate(client, server)
		}
	})
	if ok, err := says(client, "x", 20*time.Second); !ok {
		g.b.Fatalf("no answer: %v", err)
	}
	took := time.Since(began)
	eventually(g.b, "the announcements are over", func() bool { return time.Since(began) > took+200*time.Millisecond })
	return took
}

func (g gap) must(err error) {
	if err != nil {
		g.b.Error(err)
	}
}

// silence drops every segment to the address before any fence sees it.
func silence(t testing.TB, ns string, addr netip.Addr) {
	t.Helper()
	change(t, ns, func(c *nftables.Conn) {
		before := nftables.ChainPriority(-450)
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "silence"})
		chain := c.AddChain(&nftables.Chain{Table: table, Name: "in", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: &before})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(
			meta(expr.MetaKeyNFPROTO, icmpOf(addr).family), network(to(addr), addr.AsSlice()), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}},
		)})
	})
}

func unsilence(t testing.TB, ns string) {
	t.Helper()
	change(t, ns, func(c *nftables.Conn) { c.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "silence"}) })
}

// change is one nftables transaction.
func change(t testing.TB, ns string, f func(*nftables.Conn)) {
	t.Helper()
	err := within(ns, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		f(c)
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tellLate sends the client ICMP errors that quote the oldest byte the server waits for: one for each time that the client may
// have doubled its timeout.
func (g gap) tellLate(client, server net.Conn) {
	const doublings = 6
	next, err := awaited(server)
	g.must(err)
	from, to := netip.MustParseAddrPort(server.LocalAddr().String()), netip.MustParseAddrPort(client.LocalAddr().String())
	quoted := slices.Concat([]byte{0x45, 0, 0, 41, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0}, to.Addr().AsSlice(), from.Addr().AsSlice(), make([]byte, 8))
	binary.BigEndian.PutUint16(quoted[20:], to.Port())
	binary.BigEndian.PutUint16(quoted[22:], from.Port())
	binary.BigEndian.PutUint32(quoted[24:], next)
	message := append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, quoted...)
	var sum uint32
	for i := 0; i < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum&0xffff+sum>>16))
	g.must(within(g.ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range doublings {
			if err := unix.Sendto(fd, message, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// awaited is the sequence number of the next byte that a connection's end waits for.
func awaited(c net.Conn) (seq uint32, err error) {
	const receiveQueue, offWithoutProbe = 1, -1
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return
		}
		if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, receiveQueue); err == nil {
			var n int
			n, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			seq = uint32(n)
		}
		if off := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, offWithoutProbe); err == nil {
			err = off
		}
	})
	if err == nil {
		err = failed
	}
	return seq, err
}
