package coordinator

import (
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
	workerapi "drover/worker/api"
)

func TestAHostIsCertifiedAnewAndNobodyElse(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		id, _ := c.enter("beta", "worker", "beta:7202")
		pool := link.NewPool(id, link.WithDial(c.net.From("beta")))
		defer pool.Close()
		key := pki.Format(id.Signer.PublicKey())
		time.Sleep(time.Minute)            //nolint:forbidigo // a bubble's time
		for name := range c.coordinators { // the leader, and followers that pass it on
			reply := must(api.NewClient(pool.HTTP(name+":7201", "coordinator")).Renew(t.Context(), key))(t)
			next := must(id.Renewed(must(pki.ParseCertificate(reply.HostCert))(t), must(pki.ParseCertificate(reply.UserCert))(t)))(t)
			if !next.Expires().After(id.Expires()) {
				t.Errorf("renewed at %s they are good until %s, before until %s", name, next.Expires(), id.Expires())
			}
		}
		_, err := api.NewClient(pool.HTTP(c.leader().cfg.Advertise, "coordinator")).Renew(t.Context(), "garbage")
		wantKind(t, "a key of garbage", err, errs.Invalid)
		_, err = api.NewClient(pool.HTTP(c.leader().cfg.Advertise, "coordinator")).Renew(t.Context(), pki.Format(must(pki.NewKey())(t).PublicKey()))
		wantKind(t, "another key", err, errs.Forbidden)
		_, err = c.any().Renew(t.Context(), key)
		wantKind(t, "an operator's", err, errs.Forbidden)
		if err := c.any().RemoveHost(t.Context(), "beta"); err != nil {
			t.Fatal(err)
		}
		after := link.NewPool(id, link.WithDial(c.net.From("beta"))) // the others' connections are closed
		defer after.Close()
		_, err = api.NewClient(after.HTTP(c.leader().cfg.Advertise, "coordinator")).Renew(t.Context(), key)
		wantKind(t, "a host that was removed", err, errs.Forbidden)
	})
}

func TestAHostWhoseCertificatesHaveExpiredMayRenewThemAndNothingElse(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		id, _ := c.enter("beta", "worker", "beta:7202")
		if left := time.Until(id.Expires()); left > 24*time.Hour {
			t.Errorf("a member's certificates are good for %s", left)
		}
		host, user, err := c.authority.Certify(id.Signer.PublicKey(), id.Principal(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		id.HostCert, id.UserCert = host, user
		time.Sleep(2 * time.Second) //nolint:forbidigo // a bubble's time
		key := pki.Format(id.Signer.PublicKey())
		pool := link.NewPoolFor(link.AsLapsed(id), link.WithDial(c.net.From("beta")))
		defer pool.Close()
		for name := range c.coordinators {
			way := api.NewClient(pool.HTTP(name+":7201", "coordinator"))
			_, err := way.Heartbeat(t.Context(), api.Heartbeat{Facts: workerapi.HostFacts{Name: "beta"}})
			wantKind(t, "a heartbeat", err, errs.Forbidden)
			_, err = way.Hosts(t.Context())
			wantKind(t, "a look", err, errs.Forbidden)
			_, err = way.Renew(t.Context(), pki.Format(must(pki.NewKey())(t).PublicKey()))
			wantKind(t, "another key", err, errs.Forbidden)
			reply := must(way.Renew(t.Context(), key))(t)
			next := must(id.Renewed(must(pki.ParseCertificate(reply.HostCert))(t), must(pki.ParseCertificate(reply.UserCert))(t)))(t)
			if next.Principal() != pki.Worker("beta") || next.Expired() {
				t.Errorf("renewed at %s it is %s until %s", name, next.Principal(), next.Expires())
			}
		}
		if err := c.any().RemoveHost(t.Context(), "beta"); err != nil {
			t.Fatal(err)
		}
		gone := link.NewPoolFor(link.AsLapsed(id), link.WithDial(c.net.From("beta")))
		defer gone.Close()
		_, err = api.NewClient(gone.HTTP(c.leader().cfg.Advertise, "coordinator")).Renew(t.Context(), key)
		wantKind(t, "a host that was removed", err, errs.Forbidden)
	})
}

func TestCoordinatorsRenewTheirOwnCertificates(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		var saved *pki.Identity
		c2 := c.coordinators["c2"]
		c2.stop()
		cfg := c2.cfg
		cfg.Identity = must(c.authority.NewIdentity(pki.Coordinator("c2"), 6*time.Minute))(t)
		cfg.SaveIdentity = func(id *pki.Identity) error { saved = id; return nil }
		c.start(cfg)
		time.Sleep(7 * time.Minute) //nolint:forbidigo // a bubble's time
		st := must(c.any().Cluster(t.Context()))(t)
		for _, m := range st.Coordinators {
			if m.Name == "c2" && (!m.Healthy || time.Until(m.CertificateUntil) < 23*time.Hour) {
				t.Errorf("c2 is %+v", m)
			}
		}
		if saved == nil || time.Until(saved.Expires()) < 23*time.Hour || len(st.Coordinators) != 3 {
			t.Errorf("saved was %v, of the coordinators %v", saved, names(st))
		}
	})
}
