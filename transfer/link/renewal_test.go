package link_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/pki"
	"drover/transfer/link"
)

// renewing runs a renewal of an identity until the test's bubble ends it.
func (c *cluster) renewing(ctx context.Context, all *sync.WaitGroup, id *pki.Identity, pool *link.Pool, s *link.Server, fails func() error) (r *link.Renewal, saved *int) {
	saved = new(int)
	r = &link.Renewal{
		Own:  id,
		Pool: pool, Server: s, Log: slog.New(slog.DiscardHandler),
		Save: func(*pki.Identity) error { *saved++; return nil },
		Ask: func(_ context.Context, id *pki.Identity) (*pki.Identity, error) {
			if err := fails(); err != nil {
				return nil, err
			}
			host, user, err := c.authority.Certify(id.Signer.PublicKey(), id.Principal(), 3*time.Hour)
			if err != nil {
				return nil, err
			}
			return id.Renewed(host, user)
		},
	}
	all.Go(func() { r.Run(ctx) })
	return r, saved
}

func TestCertificatesAreRenewedBeforeTheyRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		ids := map[string]*pki.Identity{}
		for _, name := range []string{"alpha", "beta"} {
			id, err := c.authority.NewIdentity(pki.Worker(name), 3*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			ids[name] = id
		}
		l, err := c.net.Listen("beta:1")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		s := link.NewServer(ids["beta"], link.Options{Log: slog.New(slog.DiscardHandler)})
		go echo(s.Listener(link.ChannelAPI, all))
		work.Go(func() { s.Serve(ctx, l) })
		own, pool := c.pool(link.AsDaemon(ids["beta"])), c.pool(link.AsDaemon(ids["alpha"]))
		never := func() error { return nil }
		c.renewing(ctx, &work, ids["beta"], own, s, never)
		failures := 0
		alpha, saved := c.renewing(ctx, &work, ids["alpha"], pool, nil, func() error {
			if failures++; failures%3 != 0 { // two of three times nobody answers
				return errors.New("no coordinator answers")
			}
			return nil
		})
		for hour := range 24 {
			conn, err := pool.Open(ctx, "beta:1", "worker:beta", link.ChannelAPI)
			if err != nil {
				t.Fatalf("after %d hours: %v", hour, err)
			}
			exchange(t, conn, "hello")
			conn.Close()
			if left := time.Until(alpha.Expires()); left < 30*time.Minute {
				t.Errorf("after %d hours alpha's certificates are good for %s", hour, left)
			}
			time.Sleep(time.Hour) //nolint:forbidigo // a bubble's time
		}
		if *saved < 8 || *saved > 13 {
			t.Errorf("in a day certificates of three hours were renewed %d times", *saved)
		}
		cancel()
		pool.Close()
		own.Close()
		work.Wait()
	})
}

func TestOnlyCertificatesForTheSameIdentityAreTaken(t *testing.T) {
	c := newCluster(t)
	id := c.identity(pki.Worker("alpha"))
	other := c.identity(pki.Worker("beta"))
	stranger := newCluster(t).identity(pki.Worker("alpha"))
	for why, with := range map[string]*pki.Identity{"another's": other, "another cluster's": stranger} {
		if _, err := id.Renewed(with.HostCert, with.UserCert); err == nil {
			t.Errorf("%s certificates were taken", why)
		}
	}
	if _, err := id.Renewed(nil, id.UserCert); err == nil {
		t.Error("it lost its host certificate")
	}
	host, user, err := c.authority.Certify(id.Signer.PublicKey(), id.Principal(), 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	next, err := id.Renewed(host, user)
	if err != nil || !next.Expires().After(id.Expires()) || next.Due().After(next.Expires().Add(-15*time.Hour)) {
		t.Errorf("renewed until %v, due %v: %v", next.Expires(), next.Due(), err)
	}
}
