package pki

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func FuzzParseToken(f *testing.F) {
	f.Add("drover1.AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := ParseToken(s); err == nil && tok.String() != strings.TrimSpace(s) {
			t.Errorf("%q was read as %q", s, tok)
		}
	})
}

// FuzzParsePrincipal: what is read says the same again, and its name can stand in a path.
func FuzzParsePrincipal(f *testing.F) {
	f.Add("worker:alpha")
	f.Add("operator:alice@example:admin")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePrincipal(s)
		if err == nil && (p.String() != s || strings.ContainsAny(p.Name, "/:\x00") || p.Name[0] == '.') {
			t.Errorf("%q was read as %#v", s, p)
		}
	})
}

// FuzzParseTrust: what is read is keys that say the same again, and no certificate.
func FuzzParseTrust(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2Q2sBCqFTPNHYqSzqq2WLGhfy0Fe5Vg5EPBHhVIcqe\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTrust(s)
		if err != nil {
			return
		}
		again, err := ParseTrust(got.String())
		if err != nil || !again.Same(got) || len(got) > maxTrust {
			t.Errorf("%q was read as %q and then as %q, %v", s, got, again, err)
		}
		for _, key := range got {
			if _, ok := key.(*ssh.Certificate); ok {
				t.Errorf("%q holds a certificate", s)
			}
		}
	})
}

// FuzzCheckTransfer: whatever an authority may have signed, what is taken as a transfer is complete and says what the certificate says.
func FuzzCheckTransfer(f *testing.F) {
	a, err := NewAuthority()
	if err != nil {
		f.Fatal(err)
	}
	key, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("m-1", "3", "alpha", "beta", Pages, "transfer:alpha")
	f.Add("m-1", "-1", "../alpha", "", "both", "worker:alpha")
	f.Fuzz(func(t *testing.T, id, epoch, source, target, direction, principal string) {
		cert, err := a.sign(key.PublicKey(), ssh.UserCert, []string{principal}, map[string]string{
			"migration@drover": id, "epoch@drover": epoch, "source@drover": source, "target@drover": target, "direction@drover": direction,
		}, time.Hour)
		if err != nil {
			return
		}
		got, err := CheckTransfer(cert, a.Trust())
		if err == nil && (got.Valid() != nil || principal != "transfer:"+source || string(got.Migration) != id || got.Target != target) {
			t.Errorf("taken as %v", got)
		}
		if p, err := CheckUser(cert, a.Trust()); err == nil {
			t.Errorf("it passes for %s", p)
		}
	})
}
