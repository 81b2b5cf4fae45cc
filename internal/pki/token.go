package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash/crc32"
	"strings"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
)

const (
	tokenPrefix   = "drover1."
	secretBytes   = 32
	maxAddresses  = 16
	maxAddress    = 255
	maxTokenBytes = 8 << 10
)

// Token is what a person carries from the cluster to a machine that shall join it: whom to trust, where to ask, and the
// secret that may be used once.
type Token struct {
	Fingerprint string   // of the cluster's authority, "SHA256:…"
	Addresses   []string // of coordinators, host:port
	Secret      string   // 32 random bytes, base64url without padding
}

// NewToken makes a token with a new secret.
func NewToken(authority ssh.PublicKey, addresses []string) (Token, error) {
	if len(addresses) == 0 || len(addresses) > maxAddresses {
		return Token{}, errs.New(errs.Invalid, "a token carries 1 to %d addresses, not %d", maxAddresses, len(addresses))
	}
	for _, a := range addresses {
		if len(a) == 0 || len(a) > maxAddress {
			return Token{}, errs.New(errs.Invalid, "a token cannot carry the address %q", a)
		}
	}
	var secret [secretBytes]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return Token{}, errs.New(errs.Failed, "make a token: %w", err)
	}
	return Token{
		Fingerprint: ssh.FingerprintSHA256(authority),
		Addresses:   addresses,
		Secret:      base64.RawURLEncoding.EncodeToString(secret[:]),
	}, nil
}

// Hash is what the cluster keeps of the token: HashSecret of its secret.
func (t Token) Hash() string { return HashSecret(t.Secret) }

// HashSecret is the hex SHA-256 of a token's secret. The secret has 256 random bits, so that a plain hash is enough.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// String is the token as one word. It holds the secret: never log it.
//
// The form is "drover1." and, in base64url: fingerprint (32 bytes), secret (32), each address with its length in a byte
// before it, and a CRC-32 of all that, which finds a token that was copied wrongly.
func (t Token) String() string {
	var b bytes.Buffer
	fingerprint, _ := base64.RawStdEncoding.DecodeString(strings.TrimPrefix(t.Fingerprint, "SHA256:"))
	secret, _ := base64.RawURLEncoding.DecodeString(t.Secret)
	b.Write(fingerprint)
	b.Write(secret)
	for _, a := range t.Addresses {
		b.WriteByte(byte(len(a)))
		b.WriteString(a)
	}
	sum := crc32.ChecksumIEEE(b.Bytes())
	b.Write([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b.Bytes())
}

// ParseToken reads what String wrote.
func ParseToken(s string) (Token, error) {
	bad := func(why string) (Token, error) {
		return Token{}, errs.New(errs.Invalid, "this is no join token: %s", why).
			WithNext("copy the whole token again, or have a new one made")
	}
	body, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok || len(s) > maxTokenBytes {
		return bad("it does not begin with " + tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return bad("it has a character that no token has, or an end is missing")
	}
	if len(b) < sha256.Size+secretBytes+4 {
		return bad("it is too short")
	}
	b, tail := b[:len(b)-4], b[len(b)-4:]
	if sum := crc32.ChecksumIEEE(b); !bytes.Equal(tail, []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}) {
		return bad("it was copied wrongly")
	}
	t := Token{
		Fingerprint: "SHA256:" + base64.RawStdEncoding.EncodeToString(b[:sha256.Size]),
		Secret:      base64.RawURLEncoding.EncodeToString(b[sha256.Size : sha256.Size+secretBytes]),
	}
	for b = b[sha256.Size+secretBytes:]; len(b) > 0; {
		n := int(b[0])
		if n == 0 || n >= len(b) || len(t.Addresses) == maxAddresses {
			return bad("its addresses are garbled")
		}
		t.Addresses = append(t.Addresses, string(b[1:1+n]))
		b = b[1+n:]
	}
	if len(t.Addresses) == 0 {
		return bad("it names no coordinator")
	}
	return t, nil
}
