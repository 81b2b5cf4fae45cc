package coordinator

import (
	"testing"
	"time"

	"drover/internal/migration"
	"drover/internal/pki"
	workerapi "drover/worker/api"
)

func TestASourceGetsTheCertificateOfItsTransferAndATargetNone(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		alpha, beta := c.addHost("alpha"), c.addHost("beta")
		c.run("redis", "alpha")
		began := time.Now()
		id := c.migrate("redis", "beta", workerapi.MoveOptions{Deadline: time.Hour}).ID
		if m := c.finish(id); m.Phase != migration.Done {
			t.Fatalf("it ended %s: %s", m.Phase, m.Reason)
		}
		c.world.mu.Lock()
		defer c.world.mu.Unlock()
		source, target := alpha.sessions[id].req, beta.sessions[id].req
		cert := must(pki.ParseCertificate(source.Permit))(t)
		got := must(pki.CheckTransfer(cert, c.authority.Trust()))(t)
		if want := (pki.Transfer{Migration: id, Epoch: 1, Source: "alpha", Target: "beta", Direction: pki.Pages}); got != want {
			t.Errorf("it is bound to %v, not %v", got, want)
		}
		if pki.Format(cert.Key) != c.leader().node.View().Hosts["alpha"].Key {
			t.Error("it is for another key than alpha's")
		}
		if end := time.Unix(int64(cert.ValidBefore), 0); end.Before(began.Add(time.Hour)) || end.After(began.Add(time.Hour+pki.Skew+time.Minute)) {
			t.Errorf("it is good until %s, the verdict is due %s", end, began.Add(time.Hour))
		}
		if target.Permit != "" {
			t.Error("the target may send too")
		}
	})
}
