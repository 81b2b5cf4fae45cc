package network

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
)

// datagrams opens a UDP socket in a namespace.
func (l *lan) datagrams(nsPath, address string) net.PacketConn {
	l.t.Helper()
	var c net.PacketConn
	err := within(nsPath, func() (err error) {
		c, err = net.ListenPacket("udp", address)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

// A tree that has been released, or whose dump was refused, may send before its address is shown: what it sends is lost, as networks lose
// datagrams, and no call of it fails. Nobody hears of it, nor does the neighbour who is to be asked for.
func TestADatagramIsLostAtTheFenceAndItsSenderNotTold(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lan, address netip.Prefix, _ netip.Addr) {
		ns := l.workload("beta", "target", Config{Address: address, Fenced: true})
		hears := l.datagrams(l.path("client"), port(clientAddr(address)))
		says := l.datagrams(ns, port(address.Addr()))
		local := l.datagrams(ns, "")
		say := func(what string) {
			t.Helper()
			if _, err := says.WriteTo([]byte(what), hears.LocalAddr()); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		say("behind the fence")
		if _, err := local.WriteTo([]byte("to itself"), says.LocalAddr()); err != nil {
			t.Errorf("to itself: %v", err)
		}
		if got := l.neighbour("client", address.Addr().String()); got != "" {
			t.Errorf("the client found the fenced address at %s", got)
		}
		// A program that reads the queue, and lets on what it reads: the chain "last" is in its way.
		change(t, ns, func(c *nftables.Conn) {
			c.FlushChain(&nftables.Chain{Table: fenceTables(address.Addr())[0], Name: "out"})
		})
		if _, err := says.WriteTo([]byte("past the queue"), hears.LocalAddr()); err == nil {
			t.Error("what got past the queue was let out")
		}
		if err := Open(ctx, ns, address.Addr()); err != nil {
			t.Fatal(err)
		}
		if err := Unfence(ctx, ns, address.Addr()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		say("shown")
		got := make([]byte, 100)
		if err := hears.SetReadDeadline(start.Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, _, err := hears.ReadFrom(got)
		if err != nil || string(got[:n]) != "shown" {
			t.Errorf("the client hears %q, %v first", got[:n], err)
		}
		if took := time.Since(start); took > 900*time.Millisecond { // had it been asked for the neighbour behind the fence, it would be
			t.Errorf("the first datagram took %v", took)
		}
	})
}
