package pki

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"drover/internal/errs"
)

func authority(t testing.TB) *Authority {
	t.Helper()
	a, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func identity(t testing.TB, a *Authority, p Principal) *Identity {
	t.Helper()
	id, err := a.NewIdentity(p, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestPrincipalsKeepTheirMeaningAsText(t *testing.T) {
	for _, p := range []Principal{Worker("alpha"), Coordinator("c1"), {RoleOperator, "alice@example", LevelAdmin}, {RoleJoin, "t1", RoleWorker}} {
		got, err := ParsePrincipal(p.String())
		if err != nil || got != p {
			t.Errorf("%s came back as %v, %v", p, got, err)
		}
	}
}

func TestMalformedPrincipalsAreRefused(t *testing.T) {
	for _, s := range []string{
		"", "alpha", "worker:", "worker:a b", "worker:alpha:admin", "worker:alpha:", "operator:alice", "operator:alice:root",
		"root:alice", "worker:../x", "worker:.hidden", "worker:-x", "join:t1", "worker:" + strings.Repeat("a", 65), strings.Repeat("x", 1000),
	} {
		if p, err := ParsePrincipal(s); err == nil {
			t.Errorf("%q was read as %#v", s, p)
		}
	}
}

func TestAnOperatorsLevelIncludesTheLowerOnes(t *testing.T) {
	alice := Principal{RoleOperator, "alice", LevelOperator}
	if !alice.AtLeast(LevelViewer) || !alice.AtLeast(LevelOperator) || alice.AtLeast(LevelAdmin) || alice.AtLeast("unknown") {
		t.Error("an operator's level is wrong")
	}
	if Worker("alpha").AtLeast(LevelViewer) {
		t.Error("a worker passes for an operator")
	}
}

func TestAnIdentitySurvivesTheDisk(t *testing.T) {
	a, dir := authority(t), filepath.Join(t.TempDir(), "identity")
	id := identity(t, a, Worker("alpha"))
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Principal() != Worker("alpha") || Format(got.HostCert) != Format(id.HostCert) || Format(got.UserCert) != Format(id.UserCert) {
		t.Errorf("got %+v", got)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, keyFile: 0o600, userCertFile: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestAKeyThatOthersMayReadIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca")
	a := authority(t)
	if err := a.Save(file); err != nil {
		t.Fatal(err)
	}
	got, err := LoadAuthority(file)
	if err != nil || got.Fingerprint() != a.Fingerprint() {
		t.Fatalf("loaded %v, %v", got, err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAuthority(file); errs.KindOf(err) != errs.Refused || !strings.Contains(errs.NextOf(err), "chmod") {
		t.Errorf("got %v, next %q", err, errs.NextOf(err))
	}
}

func TestAMissingIdentityIsSaidToBeMissing(t *testing.T) {
	if _, err := LoadIdentity(t.TempDir()); errs.KindOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestAnIdentityWithAnotherKeysCertificateIsRefused(t *testing.T) {
	a := authority(t)
	id, other := identity(t, a, Worker("alpha")), identity(t, a, Worker("alpha"))
	id.HostCert = other.HostCert
	if err := id.Save(t.TempDir()); err == nil {
		t.Error("saved")
	}
}

func TestWhatACertificateProves(t *testing.T) {
	ours, theirs := authority(t), authority(t)
	worker := identity(t, ours, Worker("c1"))
	foreign := identity(t, theirs, Worker("c1"))

	if p, err := CheckUser(worker.UserCert, ours.Trust()); err != nil || p != Worker("c1") {
		t.Errorf("own user certificate: %v, %v", p, err)
	}
	if _, err := CheckUser(foreign.UserCert, ours.Trust()); errs.KindOf(err) != errs.Forbidden {
		t.Errorf("a foreign authority's user is taken: %v", err)
	}
	if _, err := CheckUser(worker.HostCert, ours.Trust()); err == nil {
		t.Error("a host certificate is taken for a user's")
	}
	for want, ok := range map[string]bool{"worker:c1": true, "worker": true, "coordinator:c1": false, "coordinator": false, "worker:c2": false, "c1": false, "": false} {
		if err := CheckHost(worker.HostCert, ours.Trust(), want); (err == nil) != ok {
			t.Errorf("taken as %q: %v", want, err)
		}
	}
	if err := CheckHost(worker.UserCert, ours.Trust(), "worker:c1"); err == nil {
		t.Error("a user certificate is taken for a host's")
	}
}

func TestACertificateThatNamesNobodyIsForNobody(t *testing.T) {
	a := authority(t)
	cert, err := a.sign(identity(t, a, Worker("x")).Signer.PublicKey(), 1, []string{"worker:x"}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert.ValidPrincipals = nil
	if err := cert.SignCert(randReader{}, a.key.Signer); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckUser(cert, a.Trust()); errs.KindOf(err) != errs.Forbidden {
		t.Errorf("got %v", err)
	}
}

type randReader struct{}

func (randReader) Read(b []byte) (int, error) { return len(b), nil }

func TestCertificatesBeginAndEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour) //nolint:forbidigo // certificates reach back by Skew; a bubble's time
		a := authority(t)
		cert, err := a.SignUser(identity(t, a, Worker("alpha")).Signer.PublicKey(), Worker("alpha"), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		now := uint64(time.Now().Unix())
		if cert.ValidAfter != now-uint64(Skew.Seconds()) || cert.ValidBefore != now+60 {
			t.Errorf("valid from %d to %d at %d", cert.ValidAfter, cert.ValidBefore, now)
		}
		if _, err := CheckUser(cert, a.Trust()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // a bubble's time
		if _, err := CheckUser(cert, a.Trust()); err == nil {
			t.Error("an expired certificate is taken")
		}
	})
}

func TestTheAuthoritySignsNoNonsense(t *testing.T) {
	a := authority(t)
	id := identity(t, a, Worker("alpha"))
	key := id.Signer.PublicKey()
	for what, names := range map[string][]string{"no name": nil, "a name without a role": {"alpha"}, "a person": {"operator:alice:admin"}} {
		if _, err := a.SignHost(key, names, time.Hour); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, ttl := range []time.Duration{0, -time.Second, MaxTTL + 1} {
		if _, err := a.SignUser(key, Worker("alpha"), ttl); errs.KindOf(err) != errs.Invalid {
			t.Errorf("a life of %v: %v", ttl, err)
		}
	}
	if _, err := a.SignUser(id.UserCert, Worker("alpha"), time.Hour); errs.KindOf(err) != errs.Invalid {
		t.Error("a certificate was certified")
	}
}

func TestTokensSurviveBeingCopied(t *testing.T) {
	a := authority(t)
	tok, err := NewToken(a.PublicKey(), []string{"10.0.0.1:7201", "[fd00::2]:7201"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken("\n" + tok.String() + "  ")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tok, got); diff != "" {
		t.Error(diff)
	}
	if got.Hash() != HashSecret(tok.Secret) || got.Fingerprint != a.Fingerprint() {
		t.Error("the hash or the fingerprint changed")
	}
}

func TestADamagedTokenIsNeverTaken(t *testing.T) {
	tok, err := NewToken(authority(t).PublicKey(), []string{"10.0.0.1:7201"})
	if err != nil {
		t.Fatal(err)
	}
	good := tok.String()
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(good)
		i := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		if rapid.Bool().Draw(t, "cut") {
			b = b[:i]
		} else {
			b[i] = rapid.SampledFrom([]byte("ABCabc019-_ .:")).Draw(t, "byte")
		}
		if string(b) == good {
			return
		}
		if got, err := ParseToken(string(b)); err == nil {
			t.Fatalf("%q was read as %+v", b, got)
		}
	})
}
