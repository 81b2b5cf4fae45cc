package network

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

func TestAFenceHidesAConnectionWithoutEndingIt(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		ns := l.workload("alpha", "redis", Config{Address: address})
		echo(l.listen(ns, port(address.Addr())))
		c, err := l.dial(l.path("client"), port(address.Addr()), 2*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := says(c, "before", 2*time.Minute); !ok {
			t.Fatalf("no answer: %v", err)
		}
		for range 2 {
			if err := Fence(ctx, ns, address.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		if ok, err := says(c, "behind", 300*time.Millisecond); ok || err != nil {
			t.Fatalf("through the fence: answered %v, %v; want silence and no reset", ok, err)
		}
		l.forget("client")
		if d, err := l.dial(l.path("client"), port(address.Addr()), 300*time.Millisecond); err == nil {
			t.Fatalf("a new connection got through the fence to %s", d.RemoteAddr())
		}
		if got := l.neighbour("client", address.Addr().String()); got != "" {
			t.Errorf("the client found the fenced address at %s", got)
		}
		for range 2 {
			if err := Open(ctx, ns, address.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		if ok, err := hears(c, "behind", 2*time.Minute); !ok {
			t.Fatalf("what was said behind the fence never came: %v", err)
		}
		if fenced, err := Fenced(ctx, ns, address.Addr()); fenced || err != nil {
			t.Errorf("what has been opened is fenced: %v, %v", fenced, err)
		}
		for range 2 {
			if err := Unfence(ctx, ns, address.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		if err := Open(ctx, ns, address.Addr()); err != nil {
			t.Errorf("open what has no fence: %v", err)
		}
		if left := tables(t, ns); len(left) != 0 {
			t.Errorf("tables are left: %v", left)
		}
	})
}

func TestAFenceIsWhereItWasPutAndNowhereElse(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		ns := l.workload("alpha", "redis", Config{Address: address})
		if err := Fence(ctx, ns, address.Addr()); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			where string
			addr  netip.Addr
			want  bool
		}{
			{ns, address.Addr(), true},
			{ns, address.Addr().Next(), false},
			{l.path("beta"), address.Addr(), false},
		} {
			if got, err := Fenced(ctx, c.where, c.addr); err != nil || got != c.want {
				t.Errorf("%s in %s: fenced %v, %v; want %v", c.addr, c.where, got, err, c.want)
			}
		}
		if err := Open(ctx, ns, address.Addr()); err != nil {
			t.Fatal(err)
		}
		if err := Fence(ctx, ns, address.Addr()); err != nil {
			t.Fatal(err)
		}
		if fenced, err := Fenced(ctx, ns, address.Addr()); !fenced || err != nil {
			t.Errorf("a fence that was opened and put up again: %v, %v", fenced, err)
		}
	})
}

func TestTheClientNeverLearnsOfATargetBehindItsFence(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		source := l.workload("alpha", "source", Config{Address: address})
		echo(l.listen(source, port(address.Addr())))
		target := l.workload("beta", "target", Config{Address: address, Fenced: true})
		for range 20 {
			l.forget("client")
			if c, err := l.dial(l.path("client"), port(address.Addr()), 2*time.Minute); err != nil {
				t.Fatal(err)
			} else {
				c.Close()
			}
			if got, want := l.neighbour("client", address.Addr().String()), mac(t, source); got != want {
				t.Fatalf("the client has the address at %s, want the source's %s", got, want)
			}
		}
		// The target may speak as it likes: nothing comes out.
		if c, err := l.dial(target, netip.AddrPortFrom(clientAddr(address), 7000).String(), 200*time.Millisecond); err == nil {
			t.Errorf("the fenced target reached %s", c.RemoteAddr())
		}
		if got, want := l.neighbour("client", address.Addr().String()), mac(t, source); got != want {
			t.Errorf("the client has the address at %s, want the source's %s", got, want)
		}
	})
}

func TestWhatWasAskedBehindTheFenceDelaysNothingAfterIt(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		echo(l.listen(l.path("client"), port(clientAddr(address))))
		target := l.workload("beta", "target", Config{Address: address, Fenced: true})
		// Had the attempt got as far as asking for the neighbour, the kernel would ask again only a second later.
		if _, err := l.dial(target, port(clientAddr(address)), 100*time.Millisecond); err == nil {
			t.Fatal("the fence leaks")
		}
		if err := Unfence(ctx, target, address.Addr()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := l.dial(target, port(clientAddr(address)), 2*time.Minute); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 900*time.Millisecond {
			t.Errorf("the first connection took %v", took)
		}
	})
}

func TestAHostHoldsAnAdoptedAddressBehindItsOwnFence(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		addr := address.Addr()
		l.in("alpha", func() error { return HoldAddress(ctx, "", address) })
		echo(l.listen(l.path("alpha"), port(addr)))
		l.in("beta", func() error {
			if err := Fence(ctx, "", addr); err != nil {
				return err
			}
			for range 2 {
				if err := HoldAddress(ctx, "", address); err != nil {
					return err
				}
			}
			return nil
		})
		echo(l.listen(l.path("beta"), port(addr)))
		if _, err := l.dial(l.path("client"), port(addr), 2*time.Minute); err != nil {
			t.Fatal(err)
		}
		if got, want := l.neighbour("client", addr.String()), mac(t, l.path("alpha")); got != want {
			t.Fatalf("the client has the address at %s, want alpha's %s", got, want)
		}
		l.in("alpha", func() error { return DropAddress(ctx, addr) })
		l.in("beta", func() error {
			if err := Unfence(ctx, "", addr); err != nil {
				return err
			}
			return Announce(ctx, "", addr)
		})
		want := mac(t, l.path("beta"))
		eventually(t, "the client knows beta's MAC", func() bool { return l.neighbour("client", addr.String()) == want })
		if _, err := l.dial(l.path("client"), port(addr), 2*time.Minute); err != nil {
			t.Fatal(err)
		}
		l.in("beta", func() error {
			for range 2 {
				if err := DropAddress(ctx, addr); err != nil {
					return err
				}
			}
			if held, err := HasAddress(addr); held || err != nil {
				t.Errorf("the address is still held: %v, %v", held, err)
			}
			return nil
		})
		if left := append(tables(t, l.path("alpha")), tables(t, l.path("beta"))...); len(left) != 0 {
			t.Errorf("tables are left: %v", left)
		}
	})
}

func TestQuestionsAboutTheAddressDoNotGetPastTheFence(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		target := l.workload("beta", "target", Config{Address: address, Fenced: true})
		before := droppedComingIn(t, target)
		l.in("client", func() error { // asks from no address, so that only the question names it
			_, err := WhoHas(ctx, eth0, address.Addr(), 10*time.Millisecond)
			return err
		})
		eventually(t, "the fence drops it", func() bool { return droppedComingIn(t, target) > before })
	})
}

// droppedComingIn is how many packets and messages the fences of a namespace have dropped on their way in.
func droppedComingIn(t *testing.T, nsPath string) (n uint64) {
	t.Helper()
	err := within(nsPath, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		chains, err := c.ListChains()
		for _, chain := range chains {
			if chain.Name != "in" {
				continue
			}
			rules, err := c.GetRules(chain.Table, chain)
			if err != nil {
				return err
			}
			for _, r := range rules {
				for _, e := range r.Exprs {
					if counter, ok := e.(*expr.Counter); ok {
						n += counter.Packets
					}
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
