package link

import (
	"errors"
	"net"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"drover/internal/errs"
	"drover/internal/pki"
)

// Credentials are what a client shows of itself and by what it knows the hosts it calls.
type Credentials struct {
	user string
	auth []ssh.AuthMethod
	// trusted says whether key is the cluster's authority.
	trusted func(key ssh.PublicKey) bool
	err     error // why these credentials cannot be used
}

// AsDaemon shows the identity's user certificate.
func AsDaemon(id *pki.Identity) Credentials {
	if err := id.Valid(); err != nil {
		return Credentials{err: err}
	}
	signer, err := ssh.NewCertSigner(id.UserCert, id.Signer)
	if err != nil {
		return Credentials{err: errs.New(errs.Invalid, "call as %s: %w", id.Principal(), err)}
	}
	return Credentials{user: id.Principal().String(), auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, trusted: id.Trust.Has}
}

// AsLapsed shows the plain key of a worker whose certificates have expired, with which it can renew them.
func AsLapsed(id *pki.Identity) Credentials {
	return Credentials{user: id.Principal().String(), auth: []ssh.AuthMethod{ssh.PublicKeys(id.Signer)}, trusted: id.Trust.Has}
}

// AsSource shows the certificate of one transfer, which is for the identity's key.
func AsSource(id *pki.Identity, permit *ssh.Certificate) Credentials {
	t, err := pki.CheckTransfer(permit, id.Trust)
	if err != nil {
		return Credentials{err: errs.New(errs.KindOf(err), "send as %s: %w", id.Principal(), err)}
	}
	signer, err := ssh.NewCertSigner(permit, id.Signer)
	if err != nil {
		return Credentials{err: errs.New(errs.Forbidden, "send %s: the certificate is for another key: %w", t, err)}
	}
	return Credentials{user: id.Principal().String(), auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, trusted: id.Trust.Has}
}

// AsJoiner shows a token's secret, once the host has proved that it is a host of the token's cluster.
func AsJoiner(t pki.Token) Credentials {
	return Credentials{
		user:    joinUser,
		auth:    []ssh.AuthMethod{ssh.Password(t.Secret)},
		trusted: func(key ssh.PublicKey) bool { return ssh.FingerprintSHA256(key) == t.Fingerprint },
	}
}

// AsOperator shows a person's own key: the one in keyFile, or with "" those that the SSH agent at SSH_AUTH_SOCK holds.
func AsOperator(trust pki.Trust, keyFile string) Credentials {
	c := Credentials{user: "operator", trusted: trust.Has}
	if len(trust) == 0 {
		c.err = errs.New(errs.Invalid, "the cluster's authority is not known").WithNext("set it in the configuration: it is the line that `drover cluster init` prints")
		return c
	}
	if keyFile == "" {
		c.auth = []ssh.AuthMethod{ssh.PublicKeysCallback(agentSigners)}
		return c
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		c.err = errs.New(errs.NotFound, "read your key: %w", err)
		return c
	}
	signer, err := ssh.ParsePrivateKey(text)
	if locked := (*ssh.PassphraseMissingError)(nil); errors.As(err, &locked) {
		c.err = errs.New(errs.Invalid, "your key %s has a passphrase", keyFile).WithNext("ssh-add %s, and leave the key's path empty", keyFile)
		return c
	}
	if err != nil {
		c.err = errs.New(errs.Invalid, "read your key %s: %w", keyFile, err)
		return c
	}
	c.auth = []ssh.AuthMethod{ssh.PublicKeys(signer)}
	return c
}

// agentSigners asks the agent anew for each connection, and each signer asks it anew for each signature, so that no
// connection to it stays open.
func agentSigners() ([]ssh.Signer, error) {
	var signers []ssh.Signer
	err := withAgent(func(a agent.ExtendedAgent) error {
		keys, err := a.List()
		for _, key := range keys {
			signers = append(signers, agentKey{key})
		}
		return err
	})
	if err == nil && len(signers) == 0 {
		err = errs.New(errs.Forbidden, "the SSH agent holds no key").WithNext("ssh-add your key, or name its file")
	}
	return signers, err
}

func withAgent(f func(agent.ExtendedAgent) error) error {
	path := os.Getenv("SSH_AUTH_SOCK")
	if path == "" {
		return errs.New(errs.Forbidden, "no key to show: SSH_AUTH_SOCK is not set").WithNext("start ssh-agent and ssh-add your key, or name its file")
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return errs.New(errs.Unavailable, "reach the SSH agent: %w", err)
	}
	defer conn.Close()
	if err := f(agent.NewClient(conn)); err != nil {
		return errs.New(errs.Failed, "ask the SSH agent at %s: %w", path, err)
	}
	return nil
}
