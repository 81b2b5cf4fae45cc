package pki

import (
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
)

// CheckUser says who the holder of cert is: it must be a user certificate that authority signed, valid now, with exactly one
// well-formed principal.
func CheckUser(cert *ssh.Certificate, authority ssh.PublicKey) (Principal, error) {
	if err := check(cert, ssh.UserCert, authority); err != nil {
		return Principal{}, err
	}
	if len(cert.ValidPrincipals) != 1 {
		return Principal{}, errs.New(errs.Forbidden, "certificate %q has %d principals, not 1", cert.KeyId, len(cert.ValidPrincipals))
	}
	return ParsePrincipal(cert.ValidPrincipals[0])
}

// CheckHost says whether cert proves that its holder is want: a principal ("worker:alpha"), or a role alone
// ("coordinator") when any host of that role will do.
func CheckHost(cert *ssh.Certificate, authority ssh.PublicKey, want string) error {
	if err := check(cert, ssh.HostCert, authority); err != nil {
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

func check(cert *ssh.Certificate, kind uint32, authority ssh.PublicKey) error {
	if cert.CertType != kind {
		return errs.New(errs.Forbidden, "certificate %q is of the wrong kind: a host's is no user's", cert.KeyId)
	}
	if !SameKey(cert.SignatureKey, authority) {
		return errs.New(errs.Forbidden, "certificate %q was signed by %s, not by this cluster's authority %s",
			cert.KeyId, ssh.FingerprintSHA256(cert.SignatureKey), ssh.FingerprintSHA256(authority))
	}
	// x/crypto/ssh takes a certificate without principals as one for everybody.
	if len(cert.ValidPrincipals) == 0 {
		return errs.New(errs.Forbidden, "certificate %q names no principal", cert.KeyId)
	}
	if err := new(ssh.CertChecker).CheckCert(cert.ValidPrincipals[0], cert); err != nil {
		return errs.New(errs.Forbidden, "certificate %q: %w", cert.KeyId, err).
			WithNext("check both hosts' clocks; an expired certificate is renewed by joining again")
	}
	return nil
}

// SameKey says whether two public keys are the same.
func SameKey(a, b ssh.PublicKey) bool {
	return a != nil && b != nil && string(a.Marshal()) == string(b.Marshal())
}
