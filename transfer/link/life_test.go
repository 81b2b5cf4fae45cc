package link_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
)

func TestAnExpiredCertificateEndsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s, stop := c.serve(pki.Worker("beta"), link.Options{})
		go echo(s.Listener(link.ChannelAPI, all))
		id := c.identity(pki.Worker("alpha"))
		var err error
		if id.UserCert, err = c.authority.SignUser(id.Signer.PublicKey(), pki.Worker("alpha"), time.Minute); err != nil {
			t.Fatal(err)
		}
		pool := c.pool(link.AsDaemon(id))
		conn, err := pool.Open(t.Context(), "beta:1", "worker:beta", link.ChannelAPI)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, conn, "before")
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
		if _, err := pool.Open(t.Context(), "beta:1", "worker:beta", link.ChannelAPI); errs.KindOf(err) != errs.Forbidden {
			t.Errorf("let in with an expired certificate: %v", err)
		}
		pool.Close()
		stop()
	})
}

func TestADeadPeerIsNoticedWithinSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s, stop := c.serve(pki.Worker("beta"), link.Options{})
		l := s.Listener(link.ChannelAPI, all)
		pool := c.as(pki.Worker("alpha"))
		near, err := pool.Open(t.Context(), "beta:1", "worker:beta", link.ChannelAPI)
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // a quiet connection lives as long as its peer does; a bubble's time
		go echoOne(far)
		exchange(t, near, "still here")
		c.net.Cut("client", "beta")
		began := time.Now()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("noticed after %v", took)
		}
		c.net.Heal("client", "beta")
		if _, err := pool.Open(t.Context(), "beta:1", "worker:beta", link.ChannelAPI); err != nil {
			t.Errorf("not reconnected: %v", err)
		}
		pool.Close()
		stop()
	})
}

func echoOne(c net.Conn) { io.Copy(c, c) }

func TestConnectionsAreSharedAndRemadeAndClosedWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s, stop := c.serve(pki.Worker("beta"), link.Options{})
		go echo(s.Listener(link.ChannelAPI, all))
		dials := 0
		dial := c.net.From("client")
		pool := link.NewPool(c.identity(pki.Worker("alpha")), link.WithDial(func(ctx context.Context, a string) (net.Conn, error) {
			dials++
			return dial(ctx, a)
		}))
		open := func() net.Conn {
			t.Helper()
			conn, err := pool.Open(t.Context(), "beta:1", "worker:beta", link.ChannelAPI)
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, conn, "hello")
			return conn
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { open().Close() })
		}
		wg.Wait()
		if dials != 1 {
			t.Errorf("20 channels took %d connections", dials)
		}
		c.net.Reset("client", "beta")
		conn := open()
		if dials != 2 {
			t.Errorf("%d connections after a reset", dials)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // a bubble's time
		exchange(t, conn, "an open channel keeps its connection")
		conn.Close()
		time.Sleep(time.Hour) //nolint:forbidigo // a bubble's time
		open().Close()
		if dials != 3 {
			t.Errorf("%d connections after an idle hour", dials)
		}
		pool.Close()
		if _, err := pool.Open(t.Context(), "beta:1", "worker:beta", link.ChannelAPI); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("a closed pool: %v", err)
		}
		stop()
	})
}

func TestARemovedPeersConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s, stop := c.serve(pki.Worker("beta"), link.Options{})
		go echo(s.Listener(link.ChannelAPI, all))
		var conns []net.Conn
		for _, name := range []string{"alpha", "gamma"} {
			conn, err := c.as(pki.Worker(name)).Open(t.Context(), "beta:1", "worker:beta", link.ChannelAPI)
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, conn, "hello")
			conns = append(conns, conn)
		}
		s.Disconnect(func(p pki.Principal) bool { return p == pki.Worker("alpha") })
		if _, err := conns[0].Read(make([]byte, 1)); err == nil {
			t.Error("alpha is still connected")
		}
		exchange(t, conns[1], "gamma still is")
		stop()
	})
}

func TestAConnectionOfItsOwnEndsWithItsChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s, stop := c.serve(pki.Worker("beta"), link.Options{})
		l := s.Listener(link.ChannelPages, all)
		pool := c.as(pki.Worker("alpha"))
		conn, err := pool.OpenApart(t.Context(), link.AsDaemon(c.identity(pki.Worker("alpha"))), "beta:1", "worker:beta", link.ChannelPages)
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		sent := strings.Repeat("page", 1<<20)
		go func() {
			io.WriteString(conn, sent)
			conn.Close()
		}()
		got, err := io.ReadAll(far)
		if err != nil || string(got) != sent {
			t.Errorf("%d of %d bytes came, %v", len(got), len(sent), err)
		}
		far.Close()
		pool.Close()
		stop()
	})
}
