package pki

import (
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
)

// maxTrust bounds how many authorities are trusted at once: the cluster's, and another one while it changes its key.
const maxTrust = 4

// Trust is the authorities whose certificates are good: the cluster's, and while it changes its key the old and the new one.
type Trust []ssh.PublicKey

// Has says whether key is one of them.
func (t Trust) Has(key ssh.PublicKey) bool {
	return slices.ContainsFunc(t, func(k ssh.PublicKey) bool { return SameKey(k, key) })
}

// Same says whether both trust the same authorities.
func (t Trust) Same(other Trust) bool {
	return len(t) == len(other) && !slices.ContainsFunc(t, func(k ssh.PublicKey) bool { return !other.Has(k) })
}

// String is the public keys in authorized_keys form, one a line.
func (t Trust) String() string { return strings.Join(t.Lines(), "\n") }

// Lines are the public keys in authorized_keys form.
func (t Trust) Lines() []string {
	lines := make([]string, len(t))
	for i, key := range t {
		lines[i] = Format(key)
	}
	return lines
}

// Fingerprints are the keys' as ssh-keygen -l prints them: "SHA256:…".
func (t Trust) Fingerprints() []string {
	names := make([]string, len(t))
	for i, key := range t {
		names[i] = ssh.FingerprintSHA256(key)
	}
	return names
}

// ParseTrust reads what String wrote: 1 to 4 public keys, none of them a certificate.
func ParseTrust(text string) (Trust, error) {
	var t Trust
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		key, err := ParsePublicKey(line)
		if err != nil {
			return nil, err
		}
		if len(t) == maxTrust {
			return nil, errs.New(errs.Invalid, "more than %d authorities", maxTrust)
		}
		t = append(t, key)
	}
	if len(t) == 0 {
		return nil, errs.New(errs.Invalid, "no authority")
	}
	return t, nil
}
