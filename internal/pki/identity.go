package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
)

// Identity is a daemon's own: its key, its certificates and the authorities it trusts.
type Identity struct {
	Name     string
	Role     string
	Signer   ssh.Signer
	HostCert *ssh.Certificate // nil for what serves nobody
	UserCert *ssh.Certificate
	Trust    Trust
}

// Files of an identity's directory.
const (
	keyFile       = "key"
	pubFile       = "key.pub"
	hostCertFile  = "host-cert.pub"
	userCertFile  = "user-cert.pub"
	authorityFile = "ca.pub"
)

// Principal is who the identity is.
func (id *Identity) Principal() Principal { return Principal{Role: id.Role, Name: id.Name} }

// Valid says whether the certificates belong to the key, to the name and to an authority that is trusted, and are valid now.
func (id *Identity) Valid() error { return id.validAt(time.Now()) }

// Genuine is Valid for an identity whose certificates may have expired.
func (id *Identity) Genuine() error {
	if id.UserCert == nil {
		return id.validAt(time.Time{})
	}
	begin, _ := id.span()
	return id.validAt(begin)
}

// SignedBy says whether both certificates are signed by that authority.
func (id *Identity) SignedBy(authority ssh.PublicKey) bool {
	return SameKey(id.UserCert.SignatureKey, authority) && (id.HostCert == nil || SameKey(id.HostCert.SignatureKey, authority))
}

// Expired says whether a certificate of the identity has expired: it can renew them by its key, and do nothing else.
func (id *Identity) Expired() bool { return !time.Now().Before(id.Expires()) }

func (id *Identity) validAt(at time.Time) error {
	if id.Signer == nil || len(id.Trust) == 0 || id.UserCert == nil {
		return errs.New(errs.Invalid, "identity %s: its key, user certificate or authority is missing", id.Principal())
	}
	p, err := checkUser(id.UserCert, id.Trust, at)
	if err != nil {
		return fmt.Errorf("identity %s: %w", id.Principal(), err)
	}
	if p != id.Principal() {
		return errs.New(errs.Invalid, "identity %s: its user certificate is for %s", id.Principal(), p)
	}
	if !SameKey(id.UserCert.Key, id.Signer.PublicKey()) {
		return errs.New(errs.Invalid, "identity %s: its user certificate is for another key", p)
	}
	if id.HostCert == nil {
		return nil
	}
	if err := checkHost(id.HostCert, id.Trust, p.String(), at); err != nil {
		return fmt.Errorf("identity %s: %w", p, err)
	}
	if !SameKey(id.HostCert.Key, id.Signer.PublicKey()) {
		return errs.New(errs.Invalid, "identity %s: its host certificate is for another key", p)
	}
	return nil
}

// Save writes the identity to dir, made 0700, its files 0600. It needs a Signer that is a *Key.
func (id *Identity) Save(dir string) error {
	if err := id.Genuine(); err != nil {
		return err
	}
	key, ok := id.Signer.(*Key)
	if !ok {
		return errs.New(errs.Invalid, "save identity %s: its key is a %T, which cannot be written", id.Principal(), id.Signer)
	}
	text, err := key.PEM()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save identity %s: %w", id.Principal(), err)
	}
	if err := writeFile(filepath.Join(dir, keyFile), text); err != nil {
		return err
	}
	public := map[string]string{pubFile: Format(key.PublicKey()), userCertFile: Format(id.UserCert), authorityFile: id.Trust.String()}
	if id.HostCert != nil {
		public[hostCertFile] = Format(id.HostCert)
	}
	for name, text := range public {
		if err := writeFile(filepath.Join(dir, name), []byte(text+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// LoadIdentity reads what Save wrote. A directory without an identity is errs.NotFound; certificates that have expired or
// do not belong to the key are refused.
func LoadIdentity(dir string) (*Identity, error) { return load(dir, (*Identity).Valid) }

// LoadGenuine is LoadIdentity that takes certificates which have expired.
func LoadGenuine(dir string) (*Identity, error) { return load(dir, (*Identity).Genuine) }

func load(dir string, check func(*Identity) error) (*Identity, error) {
	id, err := readIdentity(dir)
	if err == nil {
		err = check(id)
	}
	if err != nil {
		return nil, fmt.Errorf("load the identity in %s: %w", dir, err)
	}
	return id, nil
}

// LoadKey reads the key of the identity in dir, also of one whose certificates have expired. A directory without one is
// errs.NotFound.
func LoadKey(dir string) (*Key, error) {
	text, err := readSecret(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("load the key in %s: %w", dir, err)
	}
	return ParseKey(text)
}

func readIdentity(dir string) (*Identity, error) {
	text, err := readSecret(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(text)
	if err != nil {
		return nil, err
	}
	id := &Identity{Signer: key}
	lines, err := os.ReadFile(filepath.Join(dir, authorityFile))
	if err != nil {
		return nil, err
	}
	if id.Trust, err = ParseTrust(string(lines)); err != nil {
		return nil, fmt.Errorf("%s: %w", authorityFile, err)
	}
	if id.UserCert, err = readCertificate(filepath.Join(dir, userCertFile)); err != nil {
		return nil, err
	}
	p, err := checkUser(id.UserCert, id.Trust, time.Unix(int64(id.UserCert.ValidAfter), 0)) // whether it still holds is asked later
	if err != nil {
		return nil, fmt.Errorf("%s: %w", userCertFile, err)
	}
	id.Name, id.Role = p.Name, p.Role
	id.HostCert, err = readCertificate(filepath.Join(dir, hostCertFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return id, nil
}

func readCertificate(file string) (*ssh.Certificate, error) {
	line, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	cert, err := ParseCertificate(string(line))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return cert, nil
}

// NewIdentity makes a key and has the authority certify it, for a daemon that has the authority at hand.
func (a *Authority) NewIdentity(p Principal, ttl time.Duration) (*Identity, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	id := &Identity{Name: p.Name, Role: p.Role, Signer: key, Trust: a.Trust()}
	if id.HostCert, err = a.SignHost(key.PublicKey(), []string{p.String()}, ttl); err != nil {
		return nil, err
	}
	if id.UserCert, err = a.SignUser(key.PublicKey(), p, ttl); err != nil {
		return nil, err
	}
	return id, nil
}
