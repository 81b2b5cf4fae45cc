package pki

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
)

var sent = Transfer{Migration: "m-1", Epoch: 3, Source: "alpha", Target: "beta", Direction: Pages}

func TestATransfersCertificateSaysWhatItIsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := authority(t), authority(t)
		key := identity(t, ours, Worker("alpha")).Signer.PublicKey()
		cert, err := ours.SignTransfer(key, sent, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		got, err := CheckTransfer(cert, ours.Trust())
		if err != nil || got != sent || !IsTransfer(cert) {
			t.Errorf("got %v, %v", got, err)
		}
		if _, err := CheckUser(cert, ours.Trust()); errs.KindOf(err) != errs.Forbidden {
			t.Errorf("it passes for a worker's: %v", err)
		}
		if _, err := CheckTransfer(cert, theirs.Trust()); errs.KindOf(err) != errs.Forbidden {
			t.Errorf("another cluster takes it: %v", err)
		}
		if _, err := CheckTransfer(identity(t, ours, Worker("alpha")).UserCert, ours.Trust()); errs.KindOf(err) != errs.Forbidden {
			t.Errorf("a worker's own certificate passes for a transfer's: %v", err)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // a bubble's time
		if _, err := CheckTransfer(cert, ours.Trust()); errs.KindOf(err) != errs.Forbidden {
			t.Errorf("it outlives its time: %v", err)
		}
	})
}

func TestNoTransferIsCertifiedOrTakenInPart(t *testing.T) {
	a := authority(t)
	key := identity(t, a, Worker("alpha")).Signer.PublicKey()
	for what, change := range map[string]func(*Transfer){
		"no migration":      func(t *Transfer) { t.Migration = "" },
		"no epoch":          func(t *Transfer) { t.Epoch = 0 },
		"no source":         func(t *Transfer) { t.Source = "" },
		"no target":         func(t *Transfer) { t.Target = "" },
		"one host":          func(t *Transfer) { t.Target = t.Source },
		"another direction": func(t *Transfer) { t.Direction = "target-to-source" },
	} {
		odd := sent
		change(&odd)
		if _, err := a.SignTransfer(key, odd, time.Hour); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: certified, %v", what, err)
		}
		cert, err := a.sign(key, ssh.UserCert, []string{sent.principal().String()}, odd.options(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := CheckTransfer(cert, a.Trust()); err == nil {
			t.Errorf("%s: taken as %v", what, got)
		}
	}
	more := sent.options()
	more["force-command"] = "true"
	cert, err := a.sign(key, ssh.UserCert, []string{sent.principal().String()}, more, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckTransfer(cert, a.Trust()); errs.KindOf(err) != errs.Forbidden {
		t.Errorf("an option that is not known here is taken: %v", err)
	}
	other, err := a.sign(key, ssh.UserCert, []string{"transfer:gamma"}, sent.options(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckTransfer(other, a.Trust()); errs.KindOf(err) != errs.Forbidden {
		t.Errorf("another host's principal is taken: %v", err)
	}
}

func TestTrustSurvivesBeingText(t *testing.T) {
	old, next := authority(t), authority(t)
	both := Trust{old.PublicKey(), next.PublicKey()}
	got, err := ParseTrust("\n" + both.String() + "\n")
	if err != nil || !got.Same(both) || !got.Has(next.PublicKey()) || got.Same(old.Trust()) || got.Has(authority(t).PublicKey()) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "garbage", Format(identity(t, old, Worker("alpha")).UserCert)} {
		if _, err := ParseTrust(bad); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	cert := identity(t, next, Worker("alpha")).UserCert
	if _, err := CheckUser(cert, both); err != nil {
		t.Errorf("while both are trusted: %v", err)
	}
	if _, err := CheckUser(cert, old.Trust()); errs.KindOf(err) != errs.Forbidden {
		t.Errorf("while only the old one is: %v", err)
	}
}
