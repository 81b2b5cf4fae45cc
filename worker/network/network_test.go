package network

import (
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// families are the two worlds every behaviour is shown in.
var families = []struct {
	name                string
	client, alpha, beta string // hosts
	address             netip.Prefix
	gateway             netip.Addr
}{
	{"IPv4", "10.0.0.9/24", "10.0.0.1/24", "10.0.0.2/24", netip.MustParsePrefix("10.0.0.50/24"), netip.MustParseAddr("10.0.0.9")},
	{"IPv6", "fd07::9/64", "fd07::1/64", "fd07::2/64", netip.MustParsePrefix("fd07::50/64"), netip.MustParseAddr("fd07::9")},
}

// eachFamily runs a test on a LAN with client, alpha and beta.
func eachFamily(t *testing.T, f func(t *testing.T, l *lan, address netip.Prefix, gateway netip.Addr)) {
	for _, w := range families {
		t.Run(w.name, func(t *testing.T) {
			l := newLAN(t)
			l.host("client", w.client)
			l.host("alpha", w.alpha)
			l.host("beta", w.beta)
			f(t, l, w.address, w.gateway)
		})
	}
}

func port(a netip.Addr) string { return netip.AddrPortFrom(a, 7000).String() }

// echo answers every connection of a listener with what it is sent.
func echo(ln net.Listener) {
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
}

// says whether a message comes back within the time; a reset is an error.
func says(c net.Conn, word string, within time.Duration) (bool, error) {
	_ = c.SetDeadline(time.Now().Add(within))
	if _, err := c.Write([]byte(word)); err != nil {
		return false, err
	}
	return hears(c, word, within)
}

func hears(c net.Conn, word string, within time.Duration) (bool, error) {
	_ = c.SetDeadline(time.Now().Add(within))
	b := make([]byte, len(word))
	_, err := io.ReadFull(c, b)
	if os.IsTimeout(err) {
		return false, nil
	}
	return err == nil && string(b) == word, err
}

func TestAWorkloadIsReachedFromOtherHostsAndReachesItsGateway(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, gateway netip.Addr) {
		ns := l.workload("alpha", "redis", Config{Address: address, Gateway: gateway})
		echo(l.listen(ns, port(address.Addr())))
		c, err := l.dial(l.path("client"), port(address.Addr()), 2*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := says(c, "hello", 2*time.Minute); !ok {
			t.Fatalf("no answer: %v", err)
		}
		err = within(ns, func() error {
			return withHandle(func(h *netlink.Handle) error {
				routes, err := h.RouteGet(net.ParseIP("2001:db8::1"))
				if address.Addr().Is4() {
					routes, err = h.RouteGet(net.ParseIP("198.51.100.1"))
				}
				if err == nil && routes[0].Gw.String() != gateway.String() {
					t.Errorf("the default route goes to %s, not %s", routes[0].Gw, gateway)
				}
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestTheNamespaceHasOneAddressAndNoneOfTheKernelsOwn(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		ns := l.workload("alpha", "redis", Config{Address: address})
		err := within(ns, func() error {
			return withLink(eth0, func(h *netlink.Handle, link netlink.Link) error {
				all, err := h.AddrList(link, netlink.FAMILY_ALL)
				if len(all) != 1 || all[0].Flags&unix.IFA_F_TENTATIVE != 0 {
					t.Errorf("addresses %v, want only %s, not tentative", all, address)
				}
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestCreateTwiceIsOnceAndAnotherAddressIsAConflict(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, gateway netip.Addr) {
		cfg := Config{Address: address, Gateway: gateway}
		ns := l.workload("alpha", "redis", cfg)
		first, before := mac(t, ns), inode(t, ns)
		l.workload("alpha", "redis", cfg)
		if mac(t, ns) != first || inode(t, ns) != before {
			t.Error("the second Create made something new")
		}
		cfg.Address = netip.PrefixFrom(address.Addr().Next(), address.Bits())
		l.in("alpha", func() error {
			if err := Create(ctx, ns, cfg); errs.KindOf(err) != errs.Conflict {
				t.Errorf("another address: got %v, want a conflict", err)
			}
			return nil
		})
	})
}

func inode(t *testing.T, ns string) uint64 {
	t.Helper()
	n, err := Inode(ns)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEveryHostGivesAWorkloadAnotherMAC(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		a := l.workload("alpha", "a", Config{Address: address})
		b := l.workload("beta", "b", Config{Address: address, Fenced: true})
		if mac(t, a) == mac(t, b) {
			t.Error("both have the same MAC address")
		}
	})
}

func TestACreateThatFailsLeavesNothing(t *testing.T) {
	l := newLAN(t)
	l.host("alpha", "10.0.0.1/24")
	ns := l.path("redis")
	for _, c := range []struct {
		why  string
		cfg  Config
		want string
	}{
		{"no link has the subnet", Config{Address: netip.MustParsePrefix("10.9.0.5/24")}, "subnet of 10.9.0.5/24"},
		{"no such link", Config{Address: netip.MustParsePrefix("10.0.0.5/24"), Link: "wan7"}, "wan7"},
		{"no macvlan on this link", Config{Address: netip.MustParsePrefix("10.0.0.5/24"), Link: "lo", Fenced: true}, "macvlan on lo"},
		{"no address", Config{}, "needs an address"},
	} {
		l.in("alpha", func() error {
			err := Create(ctx, ns, c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || errs.NextOf(err) == "" && errs.KindOf(err) != errs.Invalid {
				t.Errorf("%s: got %v, want it to say %q and what to do", c.why, err, c.want)
			}
			return nil
		})
		if _, err := os.Stat(ns); !os.IsNotExist(err) {
			t.Errorf("%s: something is left at %s: %v", c.why, ns, err)
		}
	}
}

func TestDeleteTakesTheAddressOffTheNetworkAtOnceAndTwiceIsNoError(t *testing.T) {
	l := newLAN(t)
	l.host("client", "10.0.0.9/24")
	l.host("alpha", "10.0.0.1/24")
	ns := l.workload("alpha", "redis", Config{Address: netip.MustParsePrefix("10.0.0.50/24")})
	echo(l.listen(ns, "10.0.0.50:7000")) // a socket keeps the namespace itself alive
	for range 2 {
		if err := Delete(ctx, ns); err != nil {
			t.Fatal(err)
		}
	}
	l.forget("client")
	if c, err := l.dial(l.path("client"), "10.0.0.50:7000", 300*time.Millisecond); err == nil {
		t.Errorf("something still answers at %s", c.RemoteAddr())
	}
	if _, err := Inode(ns); errs.KindOf(err) != errs.NotFound {
		t.Errorf("the namespace is still bound: %v", err)
	}
}

func clientAddr(address netip.Prefix) netip.Addr {
	if address.Addr().Is4() {
		return netip.MustParseAddr("10.0.0.9")
	}
	return netip.MustParseAddr("fd07::9")
}

func TestAnnounceMovesTheAddressForTheClient(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		source := l.workload("alpha", "source", Config{Address: address})
		echo(l.listen(source, port(address.Addr())))
		target := l.workload("beta", "target", Config{Address: address, Fenced: true})
		echo(l.listen(target, port(address.Addr())))
		if _, err := l.dial(l.path("client"), port(address.Addr()), 2*time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := Fence(ctx, source, address.Addr()); err != nil {
			t.Fatal(err)
		}
		if err := Unfence(ctx, target, address.Addr()); err != nil {
			t.Fatal(err)
		}
		if err := Announce(ctx, target, address.Addr()); err != nil {
			t.Fatal(err)
		}
		want := mac(t, target)
		eventually(t, "the client knows the target's MAC", func() bool {
			return l.neighbour("client", address.Addr().String()) == want
		})
		c, err := l.dial(l.path("client"), port(address.Addr()), 2*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := says(c, "moved", 2*time.Minute); !ok {
			t.Fatalf("the target does not answer: %v", err)
		}
	})
}

func TestTheHostKeepsItsOwnAddressWhenTheWorkloadsWasThereFirst(t *testing.T) {
	l := newLAN(t)
	l.host("alpha", "10.0.0.50/24", "10.0.0.1/24")
	l.in("alpha", func() error {
		if err := DropAddress(ctx, netip.MustParseAddr("10.0.0.50")); err != nil {
			return err
		}
		for addr, want := range map[string]bool{"10.0.0.50": false, "10.0.0.1": true} {
			if held, err := HasAddress(netip.MustParseAddr(addr)); err != nil || held != want {
				t.Errorf("%s is held: %v, %v; want %v", addr, held, err, want)
			}
		}
		return nil
	})
}

func TestTheHostsOwnNetworkIsNeitherMadeNorDeleted(t *testing.T) {
	l := newLAN(t)
	l.host("alpha", "10.0.0.1/24")
	l.in("alpha", func() error {
		if err := Delete(ctx, ""); errs.KindOf(err) != errs.Invalid {
			t.Errorf("delete: %v", err)
		}
		if err := Create(ctx, "", Config{Address: netip.MustParsePrefix("10.0.0.50/24")}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("create: %v", err)
		}
		return linkUp(eth0) // it is still there
	})
}

func TestAnnouncingAnAddressThatIsNotHereIsAnError(t *testing.T) {
	l := newLAN(t)
	l.host("alpha", "10.0.0.1/24")
	if err := Announce(ctx, l.path("alpha"), netip.MustParseAddr("10.0.0.50")); errs.KindOf(err) != errs.NotFound {
		t.Errorf("got %v, want not-found", err)
	}
}

func TestWhoHasFindsTheHolderAndOnlyTheOneThatMayBeSeen(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		ask := func() (macs []string) {
			l.in("client", func() error {
				holders, err := WhoHas(ctx, eth0, address.Addr(), 200*time.Millisecond)
				for _, h := range holders {
					macs = append(macs, h.String())
				}
				return err
			})
			return macs
		}
		if got := ask(); got != nil {
			t.Errorf("nobody has it, but %v answered", got)
		}
		source := l.workload("alpha", "source", Config{Address: address})
		l.workload("beta", "target", Config{Address: address, Fenced: true})
		if got, want := ask(), []string{mac(t, source)}; !slices.Equal(got, want) {
			t.Errorf("%v answered, want %v", got, want)
		}
	})
}
