package agent

import (
	"path/filepath"
	"testing"
	"time"

	"drover/internal/pki"
)

func TestAWorkerRenewsItsCertificatesAndKeepsThem(t *testing.T) {
	c := newCluster(t)
	c.record.authority = c.authority
	c.coordinate()
	old, err := c.authority.NewIdentity(pki.Worker("alpha"), time.Minute) // a third of its life is more than is left
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "identity")
	c.saveTo = func(id *pki.Identity) error { return id.Save(dir) }
	c.host("alpha").identity = old
	c.work("alpha")
	c.until("alpha to have renewed", func() bool {
		facts, err := c.api("alpha").Host(t.Context())
		return err == nil && time.Until(facts.CertificateUntil) > 23*time.Hour
	})
	kept, err := pki.LoadIdentity(dir)
	if err != nil || kept.Principal() != old.Principal() || !pki.SameKey(kept.Signer.PublicKey(), old.Signer.PublicKey()) || time.Until(kept.Expires()) < 23*time.Hour {
		t.Errorf("kept until %v: %v", kept.Expires(), err)
	}
	c.until("its heartbeats to say so", func() bool {
		c.record.mu.Lock()
		defer c.record.mu.Unlock()
		return time.Until(c.record.beats["alpha"].Facts.CertificateUntil) > 23*time.Hour
	})
}

func TestAWorkerThatWasOffForTooLongRenewsByItsKey(t *testing.T) {
	c := newCluster(t)
	c.record.authority = c.authority
	c.coordinate()
	old, err := c.authority.NewIdentity(pki.Worker("alpha"), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	c.until("its certificates to expire", old.Expired)
	if !old.Expired() || old.Valid() == nil || old.Genuine() != nil {
		t.Fatalf("expired %v, valid %v, genuine %v", old.Expired(), old.Valid(), old.Genuine())
	}
	c.host("alpha").identity = old
	c.record.lapsed = old.Signer.PublicKey()
	c.work("alpha")
	facts, err := c.api("alpha").Host(t.Context())
	if err != nil || time.Until(facts.CertificateUntil) < 23*time.Hour {
		t.Errorf("certified until %s, %v", facts.CertificateUntil, err)
	}
}

func TestAWorkerThatIsNotRenewedGoesOnWhileItsCertificatesLast(t *testing.T) {
	c := newCluster(t)
	c.coordinate()
	old, err := c.authority.NewIdentity(pki.Worker("alpha"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c.saveTo = func(*pki.Identity) error { t.Error("what was not renewed was saved"); return nil }
	c.host("alpha").identity = old
	c.work("alpha")
	c.until("it to be heard of", func() bool {
		c.record.mu.Lock()
		defer c.record.mu.Unlock()
		return c.record.beats["alpha"].Facts.CertificateUntil.Equal(old.Expires())
	})
}

func TestAWorkerFollowsAChangeOfTheClustersKey(t *testing.T) {
	c := newCluster(t)
	next, err := pki.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "identity")
	c.saveTo = func(id *pki.Identity) error { return id.Save(dir) }
	c.record.authority = next
	c.record.trust = append(c.authority.Trust(), next.PublicKey())
	c.coordinate()
	c.work("alpha")
	c.record.mu.Lock()
	c.record.signing = next.PublicKey()
	c.record.mu.Unlock()
	c.until("alpha to be certified by the new key", func() bool {
		c.record.mu.Lock()
		defer c.record.mu.Unlock()
		f := c.record.beats["alpha"].Facts
		return f.SignedBy == next.Fingerprint() && len(f.Trusts) == 2
	})
	kept, err := pki.LoadIdentity(dir)
	if err != nil || !kept.SignedBy(next.PublicKey()) || !kept.Trust.Same(c.record.trust) {
		t.Errorf("kept %v, %v", kept, err)
	}
}
