package pki

import (
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
)

// Expires is when the first of an identity's certificates ends.
func (id *Identity) Expires() time.Time {
	_, end := id.span()
	return end
}

// Due is when an identity's certificates should be renewed: when a third of their life is left.
func (id *Identity) Due() time.Time {
	begin, end := id.span()
	return end.Add(-end.Sub(begin) / 3)
}

// span is when all of the identity's certificates are good.
func (id *Identity) span() (begin, end time.Time) {
	for _, cert := range []*ssh.Certificate{id.UserCert, id.HostCert} {
		if cert == nil {
			continue
		}
		after, before := time.Unix(int64(cert.ValidAfter), 0), time.Unix(int64(cert.ValidBefore), 0)
		if end.IsZero() || before.Before(end) {
			end = before
		}
		if after.After(begin) {
			begin = after
		}
	}
	return begin, end
}

// Renewed is the identity with new certificates for its key. They are checked: what is not valid now is refused.
func (id *Identity) Renewed(host, user *ssh.Certificate) (*Identity, error) {
	next := &Identity{Name: id.Name, Role: id.Role, Signer: id.Signer, HostCert: host, UserCert: user, Trust: id.Trust}
	if id.HostCert != nil && host == nil {
		return nil, errs.New(errs.Invalid, "renew identity %s: its host certificate is missing", id.Principal())
	}
	if err := next.Valid(); err != nil {
		return nil, errs.New(errs.KindOf(err), "renew: %w", err)
	}
	return next, nil
}

// Renew is the identity with new certificates, for a daemon that has the authority at hand.
func (a *Authority) Renew(id *Identity) (*Identity, error) {
	host, user, err := a.Certify(id.Signer.PublicKey(), id.Principal(), MemberLife)
	if err != nil {
		return nil, err
	}
	return id.Renewed(host, user)
}

// Certify makes both certificates of a daemon: that its host answers to its name, and that whoever calls is it.
func (a *Authority) Certify(pub ssh.PublicKey, p Principal, ttl time.Duration) (host, user *ssh.Certificate, err error) {
	if host, err = a.SignHost(pub, []string{p.String()}, ttl); err != nil {
		return nil, nil, err
	}
	user, err = a.SignUser(pub, p, ttl)
	return host, user, err
}
