package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/ssh"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
)

// pendingKey is the key of a machine that has asked to join and does not know the answer: it asks again with the same one.
const pendingKey = "joining.key"

// member is what a machine wants to become.
type member struct {
	role, name, address string
	dir                 string // for its identity
	authorityFile       string // coordinators only
}

// join becomes it, with a token. Nothing is kept but the identity; a join whose answer was lost can be repeated.
func (m member) join(ctx context.Context, text string) (api.JoinReply, error) {
	token, err := pki.ParseToken(text)
	if err != nil {
		return api.JoinReply{}, err
	}
	key, err := m.key()
	if err != nil {
		return api.JoinReply{}, err
	}
	pool := link.NewPoolFor(link.AsJoiner(token))
	defer pool.Close()
	req := api.JoinRequest{Token: token.Secret, Name: m.name, Role: m.role, Address: m.address, Key: pki.Format(key.PublicKey())}
	reply, err := ask(ctx, pool, token.Addresses, req)
	if err != nil {
		m.forgetIfRefused(err)
		return reply, err
	}
	if err := m.keep(token, key, reply); err != nil {
		return reply, err
	}
	return reply, os.Remove(filepath.Join(m.dir, pendingKey))
}

// ask asks one coordinator after the other. Only one that could not be reached leaves it to the next.
func ask(ctx context.Context, pool *link.Pool, addresses []string, req api.JoinRequest) (reply api.JoinReply, err error) {
	for _, address := range addresses {
		reply, err = api.NewClient(pool.HTTP(address, pki.RoleCoordinator)).Join(ctx, req)
		if err == nil || errs.KindOf(err) != errs.Unavailable || ctx.Err() != nil {
			break
		}
	}
	if errs.KindOf(err) == errs.Unavailable {
		return reply, errs.New(errs.Unavailable, "%s cannot join: %w", req.Name, err).WithNext("see that a coordinator can be reached from here, and ask again")
	}
	return reply, err
}

// key is the one it asked with before or that its expired certificates are for, or a new one that is kept until the answer is
// known.
func (m member) key() (*pki.Key, error) {
	file := filepath.Join(m.dir, pendingKey)
	text, err := os.ReadFile(file)
	if err == nil {
		return pki.ParseKey(text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.Failed, "read the key of a join that was begun: %w", err)
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, errs.New(errs.Failed, "make directory: %w", err)
	}
	key, err := pki.LoadKey(m.dir)
	if errs.KindOf(err) == errs.NotFound && err != nil {
		key, err = pki.NewKey()
	}
	if err != nil {
		return nil, err
	}
	if text, err = key.PEM(); err != nil {
		return nil, err
	}
	return key, writeNew(file, text)
}

// forgetIfRefused drops the key of a join that the cluster has surely refused; after any other failure it may have been taken.
func (m member) forgetIfRefused(err error) {
	switch errs.KindOf(err) {
	case errs.Forbidden, errs.Invalid, errs.Conflict:
		os.Remove(filepath.Join(m.dir, pendingKey))
	}
}

// keep checks what the cluster answered and writes it down.
func (m member) keep(token pki.Token, key *pki.Key, reply api.JoinReply) error {
	id := pki.Identity{Name: m.name, Role: m.role, Signer: key}
	var err error
	bad := func(what string) error {
		return errs.New(errs.Failed, "the cluster's answer to %s: %s: %w", m.name, what, err)
	}
	if id.Trust, err = pki.ParseTrust(reply.Authority); err != nil {
		return bad("its authority")
	}
	if !slices.ContainsFunc(id.Trust, func(k ssh.PublicKey) bool { return ssh.FingerprintSHA256(k) == token.Fingerprint }) {
		return errs.New(errs.Forbidden, "the cluster that answered is not the token's: its authority is another")
	}
	if id.HostCert, err = pki.ParseCertificate(reply.HostCert); err != nil {
		return bad("the host certificate")
	}
	if id.UserCert, err = pki.ParseCertificate(reply.UserCert); err != nil {
		return bad("the user certificate")
	}
	if m.authorityFile != "" {
		authority, err := pki.ParseAuthority([]byte(reply.AuthorityKey))
		if err != nil {
			return errs.New(errs.Failed, "the cluster's answer to %s: %w", m.name, err)
		}
		var next *pki.Authority
		if reply.NextKey != "" {
			if next, err = pki.ParseAuthority([]byte(reply.NextKey)); err != nil {
				return errs.New(errs.Failed, "the cluster's answer to %s: %w", m.name, err)
			}
		}
		if err := saveAuthorities(m.authorityFile, authority, next); err != nil {
			return err
		}
	}
	return id.Save(m.dir)
}

// joined says whether the identity is there already and good; that of somebody else is an error.
func (m member) joined() (bool, error) {
	id, err := pki.LoadIdentity(m.dir)
	if errs.KindOf(err) == errs.NotFound || errs.KindOf(err) == errs.Forbidden { // none, or its certificates have expired
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if id.Role != m.role || id.Name != m.name {
		return true, errs.New(errs.Conflict, "%s holds the identity of %s, not of %s %s", m.dir, id.Principal(), m.role, m.name).
			WithNext("choose another --state-dir, or join by that name")
	}
	return true, nil
}
