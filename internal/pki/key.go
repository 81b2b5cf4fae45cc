package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
)

// Key is an ed25519 private key that can be written to a file, unlike an ssh.Signer in general.
type Key struct {
	ssh.Signer
	private ed25519.PrivateKey
}

// NewKey makes a key.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return newKey(private)
}

func newKey(private ed25519.PrivateKey) (*Key, error) {
	s, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, fmt.Errorf("use a key: %w", err)
	}
	return &Key{Signer: s, private: private}, nil
}

// PEM is the private key in OpenSSH's own format.
func (k *Key) PEM() ([]byte, error) {
	block, err := ssh.MarshalPrivateKey(k.private, "drover")
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(block), nil
}

// ParseKey reads what PEM wrote.
func ParseKey(text []byte) (*Key, error) {
	raw, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read a private key: %w", err)
	}
	private, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return nil, errs.New(errs.Invalid, "a private key of type %T: only ed25519 is used here", raw)
	}
	return newKey(*private)
}

// ParsePublicKey reads one line in authorized_keys form: a plain public key, never a certificate.
func ParsePublicKey(text string) (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read a public key: %w", err)
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errs.New(errs.Invalid, "read a public key: more than one line")
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, errs.New(errs.Invalid, "read a public key: it is a certificate")
	}
	return key, nil
}

// ParseCertificate reads one line in authorized_keys form that is a certificate. It checks nothing about it.
func ParseCertificate(text string) (*ssh.Certificate, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read a certificate: %w", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, errs.New(errs.Invalid, "read a certificate: it is a plain %s key", key.Type())
	}
	return cert, nil
}

// Format writes a public key or certificate in authorized_keys form, without a trailing newline.
func Format(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// readSecret reads a private key's file and refuses one that others may read.
func readSecret(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "no private key at %s: %w", file, err)
	}
	if err != nil {
		return nil, fmt.Errorf("look at private key %s: %w", file, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, errs.New(errs.Refused, "private key %s may be read by others (mode %04o)", file, mode).
			WithNext("chmod 600 %s, and make a new key if somebody else could have read it", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read private key %s: %w", file, err)
	}
	return text, nil
}

// writeFile replaces a file in one step: after a crash it is the old one or the new one, and the new one is on the disk.
func writeFile(file string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // CreateTemp makes it 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return syncDir(filepath.Dir(file))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
