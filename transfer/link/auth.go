package link

import (
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/errs"
	"drover/internal/pki"
)

// joinUser is the SSH user whose password is a token's secret.
const joinUser = "join"

// admission is what authentication found out about a client, kept in ssh.Permissions.ExtraData: only the permissions of
// the attempt that succeeded in the end count, whatever other keys were offered before.
type admission struct {
	peer     pki.Principal
	transfer *pki.Transfer // what a transfer's certificate is bound to; nil for every other
	signedBy ssh.PublicKey // the authority that signed the certificate; nil without one
	expires  time.Time     // of the certificate; zero without one
}

type admissionKey struct{}

func admit(a admission) *ssh.Permissions {
	return &ssh.Permissions{ExtraData: map[any]any{admissionKey{}: a}}
}

// sshConfig is the server's side of authentication.
func (s *Server) sshConfig() (*ssh.ServerConfig, error) {
	me := s.me()
	if me.HostCert == nil {
		return nil, errs.New(errs.Invalid, "serve as %s: it has no host certificate", me.Principal())
	}
	hostKey, err := ssh.NewCertSigner(me.HostCert, me.Signer)
	if err != nil {
		return nil, errs.New(errs.Invalid, "serve as %s: %w", me.Principal(), err)
	}
	config := &ssh.ServerConfig{
		Config:            algorithms(),
		ServerVersion:     serverVersion,
		MaxAuthTries:      6, // an agent offers key after key
		PublicKeyCallback: s.admitKey,
		AuthLogCallback:   s.logAttempt,
	}
	if s.options.Token != nil {
		config.PasswordCallback = s.admitToken
	}
	config.AddHostKey(hostKey)
	return config, nil
}

func (s *Server) admitKey(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return s.admitPlain(key)
	}
	a := admission{expires: time.Unix(int64(cert.ValidBefore), 0), signedBy: cert.SignatureKey}
	if s.options.Transfers && pki.IsTransfer(cert) {
		t, err := pki.CheckTransfer(cert, s.me().Trust)
		if err != nil {
			return nil, err
		}
		if t.Target != s.me().Name {
			return nil, errs.New(errs.Forbidden, "the certificate is for sending %s, this is %s", t, s.me().Name)
		}
		a.peer, a.transfer = pki.Principal{Role: pki.RoleTransfer, Name: t.Source}, &t
		return admit(a), nil
	}
	var err error
	if a.peer, err = pki.CheckUser(cert, s.me().Trust); err != nil {
		return nil, err
	}
	if s.removed(a.peer) {
		return nil, errs.New(errs.Forbidden, "%s was removed from the cluster", a.peer)
	}
	return admit(a), nil
}

func (s *Server) admitPlain(key ssh.PublicKey) (*ssh.Permissions, error) {
	if s.options.Keys != nil {
		peer, ok := s.options.Keys(key)
		if ok && (peer.Role == pki.RoleOperator || peer.Role == pki.RoleLapsed) && peer.Valid() == nil {
			return admit(admission{peer: peer}), nil
		}
	}
	return nil, errs.New(errs.Forbidden, "nobody is known by the key %s", ssh.FingerprintSHA256(key))
}

func (s *Server) admitToken(meta ssh.ConnMetadata, secret []byte) (*ssh.Permissions, error) {
	if meta.User() == joinUser {
		if peer, ok := s.options.Token(string(secret)); ok && peer.Role == pki.RoleJoin && peer.Valid() == nil {
			return admit(admission{peer: peer}), nil
		}
	}
	return nil, errs.New(errs.Forbidden, "no such token")
}

func (s *Server) removed(p pki.Principal) bool {
	return s.options.Removed != nil && s.options.Removed(p)
}

func (s *Server) logAttempt(meta ssh.ConnMetadata, method string, err error) {
	if err == nil || method == "none" { // every client begins by asking with "none" which methods there are
		return
	}
	s.log.Warn("a peer was refused", slog.String("remote", meta.RemoteAddr().String()),
		slog.String("user", quoteShort(meta.User())), slog.String("method", method), slog.Any("error", err))
}
