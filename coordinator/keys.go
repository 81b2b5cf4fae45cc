package coordinator

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/internal/rpc"
)

// keyring is the private keys of the cluster's authority that this coordinator holds: usually one, and while the cluster changes its
// key the new one too. Which of them signs, and which are trusted, the record says.
type keyring struct {
	save func(now, next *pki.Authority) error // nil keeps them nowhere

	mu        sync.Mutex
	now, next *pki.Authority // next is nil unless there is a new one
}

// holder is the key with that public half, nil if it is not here; "" is the one that there was before any change.
func (k *keyring) holder(public string) *pki.Authority {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range []*pki.Authority{k.now, k.next} {
		if a != nil && (public == "" || pki.Format(a.PublicKey()) == public) {
			return a
		}
	}
	return nil
}

// fingerprints are those of all keys that are here.
func (k *keyring) fingerprints() (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range []*pki.Authority{k.now, k.next} {
		if a != nil {
			all = append(all, a.Fingerprint())
		}
	}
	return all
}

// take keeps a key that will sign later.
func (k *keyring) take(next *pki.Authority) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.put(k.now, next)
}

// promote drops the key that signed before, once that public half's signs.
func (k *keyring) promote(public string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next == nil || pki.Format(k.next.PublicKey()) != public {
		return nil
	}
	return k.put(k.next, nil)
}

func (k *keyring) put(now, next *pki.Authority) error {
	if k.save != nil {
		if err := k.save(now, next); err != nil {
			return errs.New(errs.Failed, "keep the cluster's key: %w", err)
		}
	}
	k.now, k.next = now, next
	return nil
}

// authority is the cluster's, as it signs now.
func (c *Coordinator) authority() (*pki.Authority, error) {
	var signs string
	c.node.Read(func(s *record.State) { signs = s.Signing() })
	if a := c.keys.holder(signs); a != nil {
		return a, nil
	}
	return nil, errs.New(errs.Failed, "coordinator %s does not hold the cluster's key", c.cfg.Name).
		WithNext("take it out and join it again: drover cluster remove %s", c.cfg.Name)
}

// trusted is what everybody in the cluster is to trust; nil while the record need not say.
func trusted(s *record.State) (trust pki.Trust, signing ssh.PublicKey) {
	for _, k := range s.Keys {
		key, err := pki.ParsePublicKey(k.Key)
		if err != nil {
			continue // it was checked before it was proposed
		}
		trust = append(trust, key)
		if k.Signs {
			signing = key
		}
	}
	return trust, signing
}

// followKeys has this coordinator trust, show and hold what the record says, until ctx is done.
func (c *Coordinator) followKeys(ctx context.Context) error {
	for {
		changed := c.node.Changed()
		var trust pki.Trust
		var signing ssh.PublicKey
		c.node.Read(func(s *record.State) { trust, signing = trusted(s) })
		if signing != nil {
			if err := errors.Join(c.keys.promote(pki.Format(signing)), c.certs.Follow(ctx, trust, signing)); err != nil && ctx.Err() == nil {
				c.log.Error("the cluster's key has changed and cannot be followed", "error", err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// keyPath takes a new key of the authority from another coordinator, which leads.
const keyPath = "/v1/self/key"

type newKey struct {
	PEM string `json:"pem"`
}

func (c *Coordinator) serveKey(w http.ResponseWriter, r *http.Request, caller pki.Principal) {
	if caller.Role != pki.RoleCoordinator {
		rpc.WriteError(w, errs.New(errs.Forbidden, "%s may not bring a key: it takes a caller of the role coordinator", caller))
		return
	}
	mux := http.NewServeMux()
	rpc.Handle(mux, "POST "+keyPath, func(_ *http.Request, in newKey) (rpc.None, error) {
		next, err := pki.ParseAuthority([]byte(in.PEM))
		if err != nil {
			return rpc.None{}, err
		}
		return rpc.None{}, c.keys.take(next)
	})
	mux.ServeHTTP(w, r)
}

// RotateKeys makes a step of a change of the cluster's key; see api.Coordinator.
func (c *Coordinator) RotateKeys(ctx context.Context, step string, force bool) (api.ClusterStatus, error) {
	l, err := c.leading()
	if err != nil {
		return api.ClusterStatus{}, err
	}
	if err := c.node.Fresh(ctx); err != nil {
		return api.ClusterStatus{}, err
	}
	c.membership.Lock() // who joins meanwhile would lack the new key
	defer c.membership.Unlock()
	keys := c.node.View().Keys
	pending := len(keys) == 2 && !keys[1].Signs
	var change record.Change
	switch {
	case step == api.KeyBegin:
		change, err = c.distribute(ctx)
	case len(keys) < 2:
		err = errs.New(errs.Conflict, "the cluster's key is not being changed: there is nothing to %s", step).WithNext("begin with drover cluster rotate-keys")
	case len(keys) != 2 || pending == (step == api.KeyRetire):
		err = errs.New(errs.Conflict, "the cluster's key is not at the step for %q", step).WithNext("drover status says how far it is")
	case step == api.KeySwitch:
		change, err = record.KeySwitch{To: keys[1].Key}, c.allReady(ctx, l, keys[1].Key, force)
	case step == api.KeyCancel:
		change = record.KeyRetire{Key: keys[1].Key}
	case step == api.KeyRetire:
		change, err = record.KeyRetire{Key: keys[0].Key}, errors.Join(c.allReady(ctx, l, keys[0].Key, force), c.transfersOver(keys[1].Since, force))
	default:
		err = errs.New(errs.Invalid, "a change of the cluster's key has no step %q", step)
	}
	if err != nil {
		return api.ClusterStatus{}, err
	}
	if _, err := c.node.Propose(ctx, by(ctx), change); err != nil {
		return api.ClusterStatus{}, err
	}
	c.log.Warn("the cluster's key is being changed", "step", step, "by", by(ctx))
	return c.Cluster(ctx)
}

// distribute makes a key and gives it to every coordinator. Until the record names it, it means nothing.
func (c *Coordinator) distribute(ctx context.Context) (record.Change, error) {
	now, err := c.authority()
	if err != nil {
		return nil, err
	}
	next, err := pki.NewAuthority()
	if err != nil {
		return nil, err
	}
	pem, err := next.PEM()
	if err != nil {
		return nil, err
	}
	change := record.KeyAdd{Old: pki.Format(now.PublicKey()), New: pki.Format(next.PublicKey())}
	if len(c.node.View().Keys) > 1 {
		return change, nil // the record refuses it, and says why
	}
	for _, m := range sorted(c.node.View().Members) {
		if m.Name == c.cfg.Name {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := rpc.Call(limited, c.pool.HTTP(m.Address, pki.Coordinator(m.Name).String()), "POST", keyPath, newKey{string(pem)}, nil)
		cancel()
		if err != nil {
			return nil, errs.New(errs.Conflict, "coordinator %s did not take the new key: %w", m.Name, err).
				WithNext("see that it runs, or take it out: drover cluster remove %s", m.Name)
		}
	}
	return change, c.keys.take(next)
}

// allReady refuses a step while somebody stands in its way whom the step would cut off.
func (c *Coordinator) allReady(ctx context.Context, l *lead, key string, force bool) error {
	for _, k := range c.keyStates(l, c.members(ctx)) {
		if k.Key == key && len(k.Waiting) > 0 && !force {
			return errs.New(errs.Conflict, "not every member is ready: %s", strings.Join(k.Waiting, ", ")).
				WithNext("wait for them, take out those that are gone, or leave them behind with --force: they join again with a token")
		}
	}
	return nil
}

// transfersOver refuses while a migration copies by a certificate of the old key.
func (c *Coordinator) transfersOver(since time.Time, force bool) error {
	for _, m := range sorted(c.node.View().Migrations) {
		if !m.Phase.Decided() && m.Transitions[0].Time.Before(since) && !force {
			return errs.New(errs.Conflict, "migration %s copies by a certificate of the old key", m.ID).
				WithNext("wait for it, abort it, or have it fail with --force")
		}
	}
	return nil
}

// keyStates are the keys of the record, and for whom the one that does not sign must wait: until all trust a new one, and all coordinators
// hold it, or nobody is certified by an old one.
func (c *Coordinator) keyStates(l *lead, members []api.CoordinatorState) (out []api.ClusterKey) {
	s := c.node.View()
	for i, k := range s.Keys {
		key, err := pki.ParsePublicKey(k.Key)
		if err != nil {
			continue
		}
		state := api.ClusterKey{Key: k.Key, Fingerprint: ssh.FingerprintSHA256(key), Signs: k.Signs, Since: k.Since}
		if !k.Signs {
			waits := func(trusts []string, signedBy string) bool {
				if i == 0 {
					return signedBy == "" || signedBy == state.Fingerprint
				}
				return !slices.Contains(trusts, state.Fingerprint)
			}
			for _, m := range members {
				lacks := i > 0 && !slices.Contains(m.Holds, state.Fingerprint) // a leader that was deposed meanwhile may have brought another one
				if waits(m.Trusts, m.SignedBy) || lacks {
					state.Waiting = append(state.Waiting, "coordinator "+m.Name)
				}
			}
			for _, h := range sorted(s.Hosts) {
				if facts := l.presence.of(h.Name).Facts; waits(facts.Trusts, facts.SignedBy) {
					state.Waiting = append(state.Waiting, "host "+h.Name)
				}
			}
		}
		out = append(out, state)
	}
	return out
}
