package pki

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
)

// CheckUser says who the holder of cert is: it must be a user certificate that one of the authorities signed, valid now, with exactly
// one well-formed principal.
func CheckUser(cert *ssh.Certificate, trust Trust) (Principal, error) {
	return checkUser(cert, trust, time.Now())
}

func checkUser(cert *ssh.Certificate, trust Trust, at time.Time) (Principal, error) {
	if err := check(cert, ssh.UserCert, trust, at); err != nil {
		return Principal{}, err
	}
	if len(cert.ValidPrincipals) != 1 {
		return Principal{}, errs.New(errs.Forbidden, "certificate %q has %d principals, not 1", cert.KeyId, len(cert.ValidPrincipals))
	}
	p, err := ParsePrincipal(cert.ValidPrincipals[0])
	if err == nil && p.Role == RoleTransfer { // it is somebody only together with what it is bound to: see CheckTransfer
		err = errs.New(errs.Forbidden, "certificate %q is bound to no transfer", cert.KeyId)
	}
	return p, err
}

// CheckHost says whether cert proves that its holder is want: a principal ("worker:alpha"), or a role alone
// ("coordinator") when any host of that role will do.
func CheckHost(cert *ssh.Certificate, trust Trust, want string) error {
	return checkHost(cert, trust, want, time.Now())
}

func checkHost(cert *ssh.Certificate, trust Trust, want string, at time.Time) error {
	if err := check(cert, ssh.HostCert, trust, at); err != nil {
		return err
	}
	if !slices.ContainsFunc(cert.ValidPrincipals, func(p string) bool { return answersTo(p, want) }) {
		return errs.New(errs.Forbidden, "the host is %s, not %s", strings.Join(cert.ValidPrincipals, ", "), want).
			WithNext("check the address: another host of the cluster answers there")
	}
	return nil
}

func answersTo(principal, want string) bool {
	role, _, named := strings.Cut(want, ":")
	if named {
		return principal == want
	}
	return (role == RoleWorker || role == RoleCoordinator) && strings.HasPrefix(principal, role+":")
}

// check knows the critical options of that name and no other.
func check(cert *ssh.Certificate, kind uint32, trust Trust, at time.Time, options ...string) error {
	if cert.CertType != kind {
		return errs.New(errs.Forbidden, "certificate %q is of the wrong kind: a host's is no user's", cert.KeyId)
	}
	if !trust.Has(cert.SignatureKey) {
		return errs.New(errs.Forbidden, "certificate %q was signed by %s, not by this cluster's authority %s",
			cert.KeyId, ssh.FingerprintSHA256(cert.SignatureKey), strings.Join(trust.Fingerprints(), " or "))
	}
	// x/crypto/ssh takes a certificate without principals as one for everybody.
	if len(cert.ValidPrincipals) == 0 {
		return errs.New(errs.Forbidden, "certificate %q names no principal", cert.KeyId)
	}
	if err := (&ssh.CertChecker{SupportedCriticalOptions: options, Clock: func() time.Time { return at }}).CheckCert(cert.ValidPrincipals[0], cert); err != nil {
		return errs.New(errs.Forbidden, "certificate %q: %w", cert.KeyId, err).
			WithNext("check both hosts' clocks; a daemon renews its certificates by itself once it reaches a coordinator")
	}
	return nil
}

// SameKey says whether two public keys are the same.
func SameKey(a, b ssh.PublicKey) bool {
	return a != nil && b != nil && string(a.Marshal()) == string(b.Marshal())
}
