package coordinator

import (
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
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
			if m.Name == "c2" && (!m.Healthy || time.Until(m.CertificateUntil) < 300*24*time.Hour) {
				t.Errorf("c2 is %+v", m)
			}
		}
		if saved == nil || time.Until(saved.Expires()) < 300*24*time.Hour || len(st.Coordinators) != 3 {
			t.Errorf("saved was %v, of the coordinators %v", saved, names(st))
		}
	})
}
