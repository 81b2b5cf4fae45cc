package coordinator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/transfer/link"
	workerapi "drover/worker/api"
)

// signer is who certified a coordinator.
func (m *member) signer() string {
	return ssh.FingerprintSHA256(m.certs.Identity().UserCert.SignatureKey)
}

func TestTheClustersKeyChangesWhileItsHostsMoveTrees(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.addHost("beta")
		c.run("redis", "alpha")
		move := func(to string) {
			t.Helper()
			if m := c.finish(c.migrate("redis", to, workerapi.MoveOptions{}).ID); m.Phase != migration.Done {
				t.Fatalf("a move ended %s: %s", m.Phase, m.Reason)
			}
		}
		old := c.authority.Fingerprint()
		st := must(c.any().RotateKeys(t.Context(), api.KeyBegin, false))(t)
		if len(st.Keys) != 2 || st.Keys[0].Fingerprint != old || !st.Keys[0].Signs || st.Keys[1].Signs {
			t.Fatalf("begun, the keys are %+v", st.Keys)
		}
		next := st.Keys[1]
		move("beta")
		_, err := c.any().RotateKeys(t.Context(), api.KeyBegin, false)
		wantKind(t, "a second change at once", err, errs.Conflict)
		_, err = c.any().RotateKeys(t.Context(), api.KeyRetire, false)
		wantKind(t, "retiring what signs", err, errs.Conflict)
		c.waitFor("everybody trusts the new key", func() bool {
			st, err := c.any().Cluster(t.Context())
			return err == nil && len(st.Keys) == 2 && len(st.Keys[1].Waiting) == 0
		})
		token := must(pki.ParseToken(must(c.any().NewToken(t.Context(), "worker", time.Hour))(t).Token))(t)
		must(c.any().RotateKeys(t.Context(), api.KeySwitch, false))(t)
		trust := must(pki.ParseTrust(c.authority.Trust().String() + "\n" + next.Key))(t)
		pool := c.pool // an operator who has both lines in client.yaml
		c.pool = link.NewPoolFor(c.operator(trust), link.WithDial(c.net.From("desk")))
		defer pool.Close()
		c.waitFor("everybody is certified by the new key", func() bool {
			st, err := c.any().Cluster(t.Context())
			return err == nil && len(st.Keys) == 2 && len(st.Keys[0].Waiting) == 0
		})
		move("alpha")
		for name, m := range c.coordinators {
			if m.signer() != next.Fingerprint || !slices.Equal(m.certs.Identity().Trust.Lines(), trust.Lines()) {
				t.Errorf("%s is certified by %s and trusts %s", name, m.signer(), m.certs.Identity().Trust)
			}
		}
		_, err = api.NewClient(link.NewPoolFor(link.AsJoiner(token), link.WithDial(c.net.From("late"))).HTTP("c1:7201", "coordinator")).Join(t.Context(), api.JoinRequest{})
		wantKind(t, "a token of before", err, errs.Forbidden)
		if !strings.Contains(errs.NextOf(err), "new authority") {
			t.Errorf("what to do next: %q", errs.NextOf(err))
		}
		must(c.any().RotateKeys(t.Context(), api.KeyRetire, false))(t)
		c.waitFor("the old key is forgotten", func() bool {
			for _, m := range c.coordinators {
				if len(m.certs.Identity().Trust) != 1 {
					return false
				}
			}
			return true
		})
		move("beta")
		stolen := must(c.authority.NewIdentity(pki.Worker("alpha"), time.Hour))(t) // by who kept the old key
		stolen.Trust = trust
		thief := link.NewPool(stolen, link.WithDial(c.net.From("thief")))
		defer thief.Close()
		_, err = api.NewClient(thief.HTTP("c1:7201", "coordinator")).Hosts(t.Context())
		wantKind(t, "who has the old key", err, errs.Forbidden)
		c.join("c4") // one that joins later gets the key that signs now
		if signs := c.coordinators["c4"].signer(); signs != next.Fingerprint {
			t.Errorf("c4 is certified by %s", signs)
		}
	})
}

func TestAKeysChangeWaitsForWhoIsNotReady(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.addHost("alpha")
		c.enter("gamma", "worker", "gamma:7202") // which has joined, and never came up
		var down *member
		for _, m := range c.coordinators {
			if m.lead.Load() == nil {
				down = m
			}
		}
		down.stop()
		leads := c.api(c.leader().cfg.Name)
		_, err := leads.RotateKeys(t.Context(), api.KeyBegin, false)
		wantKind(t, "with a coordinator down", err, errs.Conflict)
		c.start(down.cfg)
		c.waitFor(down.cfg.Name+" is back", func() bool {
			_, err := leads.RotateKeys(t.Context(), api.KeyBegin, false)
			return err == nil
		})
		_, err = leads.RotateKeys(t.Context(), api.KeySwitch, false)
		wantKind(t, "with a host that does not know the new key", err, errs.Conflict)
		if err != nil && !strings.Contains(err.Error(), "host gamma") {
			t.Errorf("it does not say who: %v", err)
		}
		must(leads.RotateKeys(t.Context(), api.KeyCancel, false))(t)
		if st := must(leads.Cluster(t.Context()))(t); len(st.Keys) != 1 || !st.Keys[0].Signs {
			t.Errorf("given up, the keys are %+v", st.Keys)
		}
		must(leads.RotateKeys(t.Context(), api.KeyBegin, false))(t)
		must(leads.RotateKeys(t.Context(), api.KeySwitch, true))(t)
	})
}

func TestAKeysChangeWaitsForACoordinatorThatHoldsAnotherKey(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		must(c.any().RotateKeys(t.Context(), api.KeyBegin, false))(t)
		c.waitFor("everybody is ready", func() bool {
			st, err := c.any().Cluster(t.Context())
			return err == nil && len(st.Keys) == 2 && len(st.Keys[1].Waiting) == 0
		})
		var late *member
		for _, m := range c.coordinators {
			if m.lead.Load() == nil {
				late = m
			}
		}
		if err := late.keys.take(must(pki.NewAuthority())(t)); err != nil { // of a leader that was deposed before it had recorded it
			t.Fatal(err)
		}
		_, err := c.any().RotateKeys(t.Context(), api.KeySwitch, false)
		wantKind(t, "with a coordinator that could not sign", err, errs.Conflict)
		if err != nil && !strings.Contains(err.Error(), "coordinator "+late.cfg.Name) {
			t.Errorf("it does not say who: %v", err)
		}
		must(c.any().RotateKeys(t.Context(), api.KeyCancel, false))(t)
		must(c.any().RotateKeys(t.Context(), api.KeyBegin, false))(t)
		c.waitFor("the key can be switched", func() bool {
			_, err := c.any().RotateKeys(t.Context(), api.KeySwitch, false)
			return err == nil
		})
	})
}
