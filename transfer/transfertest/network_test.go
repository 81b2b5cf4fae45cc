package transfertest

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

func TestPipeIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := Pipe()
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

// call joins alpha and beta.
func call(t *testing.T, n *Network) (near, far net.Conn) {
	t.Helper()
	l, err := n.Listen("beta:1")
	if err != nil {
		t.Fatal(err)
	}
	near, err = n.From("alpha")(t.Context(), "beta:1")
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestBytesTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		n.Delay(30 * time.Millisecond)
		near, far := call(t, n)
		began := time.Now()
		near.Write([]byte("x"))
		far.Read(make([]byte, 1))
		if took := time.Since(began); took != 30*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestACutLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		near, far := call(t, n)
		n.Cut("beta", "alpha")
		near.Write([]byte("late"))
		near.Close()
		far.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := far.Read(make([]byte, 9)); err == nil {
			t.Error("bytes crossed the cut")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.From("alpha")(ctx, "beta:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call across the cut: %v", err)
		}
		go func() {
			time.Sleep(time.Minute) //nolint:forbidigo // a bubble's time
			n.Heal("alpha", "beta")
		}()
		far.SetReadDeadline(time.Time{})
		if b, err := io.ReadAll(far); string(b) != "late" || err != nil {
			t.Errorf("after the heal: %q, %v", b, err)
		}
	})
}

func TestAKilledHostIsGoneAndMayComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		near, _ := call(t, n)
		n.Kill("beta")
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("its connection: %v", err)
		}
		if _, err := n.From("alpha")(t.Context(), "beta:1"); err == nil {
			t.Error("it answers")
		}
		call(t, n)
	})
}
