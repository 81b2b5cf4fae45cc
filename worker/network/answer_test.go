package network

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

func TestAFenceIsTheseRules(t *testing.T) {
	const from4, to4 = "meta 15 = 02, network 12+4 = 0a000032", "meta 15 = 02, network 16+4 = 0a000032"
	const a6 = "fd070000000000000000000000000050"
	const from6, to6 = "meta 15 = 0a, network 8+16 = " + a6, "meta 15 = 0a, network 24+16 = " + a6
	const solicited, advertised = "meta 15 = 0a, meta 16 = 3a, transport 0+1 = 87, transport 8+16 = " + a6, "meta 15 = 0a, meta 16 = 3a, transport 0+1 = 88, transport 8+16 = " + a6
	const segment = ", meta 16 = 06, transport 13+1 & 06 = 00, limit 1000/1s burst 200, count, "
	const datagram = ", meta 16 = 11, count, queue 49428\n"
	const criu, out = "meta 3 = 14c10000, accept\n", "mark 14c10000, count, accept"
	want := map[string]string{
		"IPv4 in": criu + to4 + segment + "reject 0 1\n" + from4 + ", count, drop\n" + to4 + ", count, drop\n",
		"IPv4 out": criu + from4 + ", meta 16 = 01, transport 0+2 = 0301, transport 17+1 = 06, transport 24+4 = 0a000032, " + out + "\n" +
			from4 + datagram + to4 + datagram + from4 + ", count, drop\n" + to4 + ", count, drop\n",
		"IPv4 last": criu + from4 + ", count, drop\n" + to4 + ", count, drop\n",
		"IPv6 in":   criu + to6 + segment + "reject 0 0\n" + from6 + ", count, drop\n" + to6 + ", count, drop\n" + solicited + ", count, drop\n" + advertised + ", count, drop\n",
		"IPv6 out": criu + from6 + ", meta 16 = 3a, transport 0+2 = 0100, transport 14+1 = 06, transport 32+16 = " + a6 + ", " + out + "\n" +
			from6 + datagram + to6 + datagram + from6 + ", count, drop\n" + to6 + ", count, drop\n" + solicited + ", count, drop\n" + advertised + ", count, drop\n",
		"IPv6 last": criu + from6 + ", count, drop\n" + to6 + ", count, drop\n" + solicited + ", count, drop\n" + advertised + ", count, drop\n",
	}
	for _, w := range families {
		t.Run(w.name, func(t *testing.T) {
			l := newLAN(t)
			l.host("alpha", w.alpha)
			for range 2 { // the second finds the first
				if err := Fence(ctx, l.path("alpha"), w.address.Addr()); err != nil {
					t.Fatal(err)
				}
			}
			for _, hook := range hooksOf(nftables.TableFamilyINet) {
				if *hook.priority >= 0 {
					t.Errorf("chain %s comes at %d, not before CRIU's lock at 0", hook.name, *hook.priority)
				}
				if got := written(t, l.path("alpha"), fenceTables(w.address.Addr())[0], hook.name); got != want[w.name+" "+hook.name] {
					t.Errorf("chain %s is\n%swant\n%s", hook.name, got, want[w.name+" "+hook.name])
				}
			}
		})
	}
}

func TestAFenceWhoseKernelCannotAnswerOnlyDrops(t *testing.T) {
	l := newLAN(t)
	l.host("alpha", "10.0.0.1/24")
	ns, addr := l.path("alpha"), netip.MustParseAddr("10.0.0.50")
	l.in("alpha", func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "x"})
		chain := c.AddChain(&nftables.Chain{Table: table, Name: "x"})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Match{Name: "nosuch", Info: &unknown}}})
		if err := errs.New(errs.Failed, "as Fence has it: %w", c.Flush()); !lacking(err) {
			t.Errorf("an expression that the kernel does not know: %v", err)
		}
		return raise(ns, addr, kind{})
	})
	const want = "meta 3 = 14c10000, accept\nmeta 15 = 02, network 12+4 = 0a000032, count, drop\nmeta 15 = 02, network 16+4 = 0a000032, count, drop\n"
	for _, chain := range []string{"in", "out", "last"} {
		if got := written(t, ns, fenceTables(addr)[0], chain); got != want {
			t.Errorf("chain %s is\n%swant\n%s", chain, got, want)
		}
	}
	if whole, err := Fenced(ctx, ns, addr); !whole || err != nil {
		t.Errorf("it is no fence: %v, %v", whole, err)
	}
}

var unknown = xt.Unknown("whatever")

// written are a chain's rules as the kernel has them, a line each.
func written(t *testing.T, ns string, table *nftables.Table, chain string) string {
	t.Helper()
	var b strings.Builder
	change(t, ns, func(c *nftables.Conn) {
		rules, err := c.GetRules(table, &nftables.Chain{Name: chain})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			var words []string
			for _, e := range r.Exprs {
				words = append(words, word(e))
			}
			b.WriteString(strings.NewReplacer(", =", " =", ", &", " &", ", to", "").Replace(strings.Join(words, ", ")) + "\n")
		}
	})
	return b.String()
}

func word(e expr.Any) string {
	switch e := e.(type) {
	case *expr.Meta:
		if e.SourceRegister {
			return "to"
		}
		return fmt.Sprintf("meta %d", e.Key)
	case *expr.Payload:
		base := map[expr.PayloadBase]string{expr.PayloadBaseNetworkHeader: "network", expr.PayloadBaseTransportHeader: "transport"}[e.Base]
		return fmt.Sprintf("%s %d+%d", base, e.Offset, e.Len)
	case *expr.Bitwise:
		return "& " + hex.EncodeToString(e.Mask)
	case *expr.Cmp:
		return "= " + hex.EncodeToString(e.Data)
	case *expr.Immediate:
		return "mark " + hex.EncodeToString(e.Data)
	case *expr.Limit:
		return fmt.Sprintf("limit %d/%ds burst %d", e.Rate, e.Unit, e.Burst)
	case *expr.Counter:
		return "count"
	case *expr.Reject:
		return fmt.Sprintf("reject %d %d", e.Type, e.Code)
	case *expr.Queue:
		return fmt.Sprintf("queue %d", e.Num)
	case *expr.Target:
		n := *e.Info.(*xt.Unknown)
		return fmt.Sprintf("queue %d", binaryutil.NativeEndian.Uint16(n[:2]))
	case *expr.Verdict:
		if e.Kind == expr.VerdictAccept {
			return "accept"
		}
		return "drop"
	}
	return fmt.Sprintf("%T", e)
}

// lock does to a namespace what CRIU's own network lock does to one that a tree has to itself.
func lock(t *testing.T, ns string) {
	t.Helper()
	change(t, ns, func(c *nftables.Conn) {
		table, drop := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "CRIU-1f2e3d"}), nftables.ChainPolicyDrop
		for _, hook := range []*nftables.ChainHook{nftables.ChainHookInput, nftables.ChainHookOutput} {
			chain := c.AddChain(&nftables.Chain{
				Table: table, Name: fmt.Sprint("hook", *hook), Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop,
			})
			mark := &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0xc114)}
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, mark, &expr.Verdict{Kind: expr.VerdictAccept},
			}})
		}
	})
}

// unreachables gives the ports of the client's whose segments were answered, as the answers come.
func unreachables(t *testing.T, l *lan, addr netip.Addr) <-chan uint16 {
	t.Helper()
	network, where, header := "ip4:icmp", "0.0.0.0", 20
	if addr.Is6() {
		network, where, header = "ip6:ipv6-icmp", "::", 40
	}
	var c net.PacketConn
	l.in("client", func() (err error) {
		c, err = net.ListenPacket(network, where)
		return err
	})
	t.Cleanup(func() { c.Close() })
	i, ports := icmpOf(addr), make(chan uint16, 1000)
	go func() {
		defer close(ports)
		b := make([]byte, 2048)
		for {
			n, _, err := c.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if quoted := 8 + header; err == nil && n >= quoted+8 && b[0] == i.kind && b[1] == i.code {
				ports <- uint16(b[quoted])<<8 | uint16(b[quoted+1])
			}
		}
	}()
	return ports
}

func localPort(c net.Conn) uint16 { return netip.MustParseAddrPort(c.LocalAddr().String()).Port() }

// fenced is a workload with connections from the client, behind a fence and CRIU's lock.
func fenced(t *testing.T, l *lan, address netip.Prefix, n int) (ns string, clients []net.Conn) {
	t.Helper()
	ns = l.workload("alpha", "redis", Config{Address: address})
	echo(l.listen(ns, port(address.Addr())))
	for range n {
		c, err := l.dial(l.path("client"), port(address.Addr()), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := says(c, "before", 5*time.Second); !ok {
			t.Fatalf("no answer: %v", err)
		}
		clients = append(clients, c)
	}
	lock(t, ns)
	if err := Fence(ctx, ns, address.Addr()); err != nil {
		t.Fatal(err)
	}
	return ns, clients
}

func TestEveryConnectionIsToldThatItsSegmentsDoNotArriveAndGoesOn(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		const many = 20 // more than the kernel would answer at once to one neighbour
		ports := unreachables(t, l, address.Addr())
		ns, clients := fenced(t, l, address, many)
		waiting := map[uint16]bool{}
		for _, c := range clients {
			waiting[localPort(c)] = true
			if _, err := io.WriteString(c, "behind"); err != nil {
				t.Fatal(err)
			}
		}
		for late := time.After(5 * time.Second); len(waiting) > 0; {
			select {
			case p := <-ports:
				delete(waiting, p)
			case <-late:
				t.Fatalf("connections %v got no answer", waiting)
			}
		}
		change(t, ns, func(c *nftables.Conn) {
			c.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "CRIU-1f2e3d"})
		})
		if err := Unfence(ctx, ns, address.Addr()); err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			if ok, err := hears(c, "behind", 5*time.Second); !ok {
				t.Fatalf("what was said behind the fence never came: %v", err)
			}
		}
	})
}

func TestNoAttemptToConnectIsAnswered(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		ports := unreachables(t, l, address.Addr())
		_, clients := fenced(t, l, address, 1)
		if c, err := l.dial(l.path("client"), port(address.Addr()), 300*time.Millisecond); err == nil || !os.IsTimeout(err) {
			t.Fatalf("a new connection: %v, %v; want silence", c, err)
		}
		// The first answer is to what is said after that: no attempt was answered.
		if _, err := io.WriteString(clients[0], "behind"); err != nil {
			t.Fatal(err)
		}
		select {
		case p := <-ports:
			if p != localPort(clients[0]) {
				t.Errorf("port %d was answered, not only the connection's %d", p, localPort(clients[0]))
			}
		case <-time.After(5 * time.Second):
			t.Error("the connection got no answer")
		}
	})
}

func TestOnlyAClientThatAskedForErrorsSeesThem(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		ns, clients := fenced(t, l, address, 2)
		level, option, want := unix.IPPROTO_IP, unix.IP_RECVERR, unix.EHOSTUNREACH
		if address.Addr().Is6() {
			level, option, want = unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.ENETUNREACH
		}
		raw, err := clients[0].(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); failed != nil || err != nil {
			t.Fatal(failed, err)
		}
		if ok, err := says(clients[0], "behind", 5*time.Second); ok || !errors.Is(err, want) {
			t.Errorf("with the option: %v, %v; want %v", ok, err, want)
		}
		if ok, err := says(clients[1], "behind", 300*time.Millisecond); ok || err != nil {
			t.Errorf("without it: %v, %v; want silence", ok, err)
		}
		change(t, ns, func(c *nftables.Conn) {
			c.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "CRIU-1f2e3d"})
		})
		if err := Unfence(ctx, ns, address.Addr()); err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			ok, err := hears(c, "behind", 5*time.Second)
			for errors.Is(err, want) { // one more of the errors from behind the fence
				ok, err = hears(c, "behind", 5*time.Second)
			}
			if !ok {
				t.Errorf("what was said behind the fence never came: %v", err)
			}
		}
	})
}

func TestTheKernelsLimitIsLiftedOnlyBehindAFenceAndOnlyInAWorkloadsOwnNamespace(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		addr, file := address.Addr(), "/proc/sys/net/ipv4/icmp_ratelimit"
		if addr.Is6() {
			file = "/proc/sys/net/ipv6/icmp/ratelimit"
		}
		limit := func(ns string) (text string) {
			t.Helper()
			l.in(ns, func() error {
				b, err := os.ReadFile(file)
				text = strings.TrimSpace(string(b))
				return err
			})
			return text
		}
		ns := l.workload("alpha", "redis", Config{Address: address})
		for _, was := range []string{"500", "0"} {
			l.in("redis", func() error { return os.WriteFile(file, []byte(was), 0) })
			for range 2 {
				if err := Fence(ctx, ns, addr); err != nil {
					t.Fatal(err)
				}
				if got := limit("redis"); got != "0" {
					t.Errorf("behind a fence it is %s", got)
				}
			}
			for range 2 {
				if err := Unfence(ctx, ns, addr); err != nil {
					t.Fatal(err)
				}
				if got := limit("redis"); got != was {
					t.Errorf("after the fence it is %s, not %s", got, was)
				}
			}
		}
		before := limit("beta")
		l.in("beta", func() error { return Fence(ctx, "", addr) })
		if got := limit("beta"); got != before || before == "0" {
			t.Errorf("a host's own was changed from %s to %s", before, got)
		}
		l.in("beta", func() error { return Unfence(ctx, "", addr) })
		if left := slices.Concat(tables(t, ns), tables(t, l.path("beta"))); len(left) != 0 {
			t.Errorf("tables are left: %v", left)
		}
	})
}
