package pki

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
)

const (
	// Skew is how far apart the clocks of two hosts may be: a certificate is valid from that long before it was signed.
	Skew = 5 * time.Minute
	// MemberLife is how long the certificates of a coordinator or worker are good. They renew them by themselves, when a third of it is
	// left (link.Renewal): what was stolen of a machine that was removed since is good for a day at most.
	MemberLife = 24 * time.Hour
	// MaxTTL bounds a certificate's life: there is no list of revoked ones, so that time must do it. A transfer's lasts until its
	// migration must have been decided, a week at most.
	MaxTTL = 8 * 24 * time.Hour
	// maxHostNames bounds the names of one host certificate.
	maxHostNames = 16
)

// Authority signs the cluster's certificates. Only coordinators hold it.
type Authority struct{ key *Key }

// NewAuthority makes a new cluster's authority.
func NewAuthority() (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	return &Authority{key}, nil
}

// ParseAuthority reads an authority from its private key's OpenSSH PEM form.
func ParseAuthority(text []byte) (*Authority, error) {
	key, err := ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("cluster authority: %w", err)
	}
	return &Authority{key}, nil
}

// LoadAuthority reads what Save wrote; a file that others may read is refused.
func LoadAuthority(file string) (*Authority, error) {
	text, err := readSecret(file)
	if err != nil {
		return nil, fmt.Errorf("load the cluster's authority: %w", err)
	}
	return ParseAuthority(text)
}

// Save writes the private key to file, mode 0600, replacing what was there in one step.
func (a *Authority) Save(file string) error {
	text, err := a.PEM()
	if err != nil {
		return err
	}
	return writeFile(file, text)
}

// PEM is the private key in OpenSSH's format: whoever has it is the cluster.
func (a *Authority) PEM() ([]byte, error) { return a.key.PEM() }

// PublicKey is what the others trust.
func (a *Authority) PublicKey() ssh.PublicKey { return a.key.PublicKey() }

// Trust trusts this authority and no other.
func (a *Authority) Trust() Trust { return Trust{a.PublicKey()} }

// Fingerprint is the public key's, as ssh-keygen -l prints it: "SHA256:…".
func (a *Authority) Fingerprint() string { return ssh.FingerprintSHA256(a.PublicKey()) }

// SignHost certifies that the holder of pub answers to names, each a worker's or coordinator's principal ("worker:alpha").
func (a *Authority) SignHost(pub ssh.PublicKey, names []string, ttl time.Duration) (*ssh.Certificate, error) {
	if len(names) == 0 || len(names) > maxHostNames {
		return nil, errs.New(errs.Invalid, "sign a host certificate: %d names, not 1 to %d", len(names), maxHostNames)
	}
	for _, name := range names {
		p, err := ParsePrincipal(name)
		if err != nil {
			return nil, errs.New(errs.Invalid, "sign a host certificate: %w", err)
		}
		if p.Role != RoleWorker && p.Role != RoleCoordinator {
			return nil, errs.New(errs.Invalid, "sign a host certificate: %q is no daemon", name)
		}
	}
	return a.sign(pub, ssh.HostCert, names, nil, ttl)
}

// SignUser certifies that the holder of pub is p.
func (a *Authority) SignUser(pub ssh.PublicKey, p Principal, ttl time.Duration) (*ssh.Certificate, error) {
	if err := p.Valid(); err != nil {
		return nil, errs.New(errs.Invalid, "sign a user certificate: %w", err)
	}
	return a.sign(pub, ssh.UserCert, []string{p.String()}, nil, ttl)
}

func (a *Authority) sign(pub ssh.PublicKey, kind uint32, names []string, options map[string]string, ttl time.Duration) (*ssh.Certificate, error) {
	if _, ok := pub.(*ssh.Certificate); ok {
		return nil, errs.New(errs.Invalid, "sign %s: what was given is itself a certificate", names[0])
	}
	if ttl <= 0 || ttl > MaxTTL {
		return nil, errs.New(errs.Invalid, "sign %s: a life of %s is not between 0 and %s", names[0], ttl, MaxTTL)
	}
	var serial [8]byte
	if _, err := rand.Read(serial[:]); err != nil {
		return nil, fmt.Errorf("sign %s: %w", names[0], err)
	}
	now := time.Now()
	cert := &ssh.Certificate{
		Key:             pub,
		CertType:        kind,
		Serial:          binary.BigEndian.Uint64(serial[:]),
		KeyId:           names[0],
		ValidPrincipals: names,
		ValidAfter:      uint64(now.Add(-Skew).Unix()),
		ValidBefore:     uint64(now.Add(ttl).Unix()),
		Permissions:     ssh.Permissions{CriticalOptions: options},
	}
	if err := cert.SignCert(rand.Reader, a.key.Signer); err != nil {
		return nil, fmt.Errorf("sign %s: %w", names[0], err)
	}
	return cert, nil
}
