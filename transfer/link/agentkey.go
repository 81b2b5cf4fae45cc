package link

import (
	"io"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentKey is a key that the SSH agent holds.
type agentKey struct{ key ssh.PublicKey }

var _ ssh.AlgorithmSigner = agentKey{}

func (k agentKey) PublicKey() ssh.PublicKey { return k.key }

func (k agentKey) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm is what makes RSA keys usable: their default algorithm is SHA-1, which servers refuse.
func (k agentKey) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (sig *ssh.Signature, err error) {
	var flags agent.SignatureFlags
	switch algorithm {
	case ssh.KeyAlgoRSASHA256:
		flags = agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoRSASHA512:
		flags = agent.SignatureFlagRsaSha512
	}
	err = withAgent(func(a agent.ExtendedAgent) error {
		sig, err = a.SignWithFlags(k.key, data, flags)
		return err
	})
	return sig, err
}
