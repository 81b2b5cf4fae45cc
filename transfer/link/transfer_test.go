package link_test

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
)

var sent = pki.Transfer{Migration: "m-1", Epoch: 3, Source: "alpha", Target: "beta", Direction: pki.Pages}

func TestATransfersCertificateOpensOneDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stranger := newCluster(t), newCluster(t)
		alpha, gamma := c.identity(pki.Worker("alpha")), c.identity(pki.Worker("gamma"))
		permit := func(c *cluster, key ssh.PublicKey, t pki.Transfer, life time.Duration) *ssh.Certificate {
			cert, err := c.authority.SignTransfer(key, t, life)
			if err != nil {
				c.t.Fatal(err)
			}
			return cert
		}
		good := permit(c, alpha.Signer.PublicKey(), sent, time.Hour)
		elsewhere, past := sent, permit(c, alpha.Signer.PublicKey(), sent, time.Minute)
		elsewhere.Target = "gamma"
		own := func(id *pki.Identity) *pki.Identity { // who trusts whom it likes
			copied := *id
			copied.Trust = append(stranger.authority.Trust(), c.authority.Trust()...)
			return &copied
		}
		beta, stopBeta := c.serve(pki.Worker("beta"), link.Options{Transfers: true})
		pages := beta.Listener(link.ChannelPages, func(p pki.Principal) bool { return p.Role == pki.RoleTransfer })
		calls := beta.Listener(link.ChannelAPI, func(p pki.Principal) bool { return p.Role == pki.RoleCoordinator })
		go echo(calls)
		c1, stopC1 := c.serve(pki.Coordinator("c1"), link.Options{})
		go echo(c1.Listener(link.ChannelAPI, all))
		pool := c.as(pki.Worker("alpha"))
		expired := link.AsSource(alpha, past)
		for _, row := range []struct {
			who     string
			cred    link.Credentials
			address string
			host    string
			channel string
			kind    errs.Kind // 0: let in
		}{
			{"the source, as certified", link.AsSource(alpha, good), "beta:1", "worker:beta", link.ChannelPages, 0},
			{"the source by its own certificate", link.AsDaemon(alpha), "beta:1", "worker:beta", link.ChannelPages, errs.Forbidden},
			{"another host with the source's", link.AsSource(gamma, good), "beta:1", "worker:beta", link.ChannelPages, errs.Forbidden},
			{"one that is for another target", link.AsSource(alpha, permit(c, alpha.Signer.PublicKey(), elsewhere, time.Hour)), "beta:1", "worker:beta", link.ChannelPages, errs.Forbidden},
			{"one of another cluster", link.AsSource(own(alpha), permit(stranger, alpha.Signer.PublicKey(), sent, time.Hour)), "beta:1", "worker:beta", link.ChannelPages, errs.Forbidden},
			{"one for another channel", link.AsSource(alpha, good), "beta:1", "worker:beta", link.ChannelAPI, errs.Forbidden},
			{"one at a coordinator", link.AsSource(alpha, good), "c1:1", "coordinator", link.ChannelAPI, errs.Forbidden},
			{"one whose time is over", expired, "beta:1", "worker:beta", link.ChannelPages, errs.Forbidden},
		} {
			if row.who == "one whose time is over" {
				time.Sleep(2 * time.Minute) //nolint:forbidigo // a bubble's time
			}
			conn, err := pool.OpenApart(t.Context(), row.cred, row.address, row.host, row.channel)
			switch {
			case row.kind == 0 && err != nil:
				t.Errorf("%s is refused: %v", row.who, err)
			case row.kind == 0:
				far, err := pages.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if got, ok := link.TransferOf(far); !ok || got != sent {
					t.Errorf("the target sees %v", got)
				}
				far.Close()
				conn.Close()
			case err == nil:
				t.Errorf("%s is let in", row.who)
			case errs.KindOf(err) != row.kind:
				t.Errorf("%s: got %v (%v)", row.who, err, errs.KindOf(err))
			}
		}
		pool.Close()
		stopBeta()
		stopC1()
	})
}

func TestATransfersConnectionEndsWithItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		alpha := c.identity(pki.Worker("alpha"))
		cert, err := c.authority.SignTransfer(alpha.Signer.PublicKey(), sent, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		beta, stop := c.serve(pki.Worker("beta"), link.Options{Transfers: true})
		go echo(beta.Listener(link.ChannelPages, all))
		pool := c.as(pki.Worker("alpha"))
		conn, err := pool.OpenApart(t.Context(), link.AsSource(alpha, cert), "beta:1", "worker:beta", link.ChannelPages)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, conn, "in time")
		began := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil || time.Since(began) > time.Minute {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		pool.Close()
		stop()
	})
}
