package coordinator

import (
	"context"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/pki"
)

// NewToken makes a token that lets one machine join once.
func (c *Coordinator) NewToken(ctx context.Context, role string, ttl time.Duration) (api.Token, error) {
	if _, err := c.leading(); err != nil {
		return api.Token{}, err
	}
	if ttl == 0 {
		ttl = time.Hour
	}
	if ttl < 0 || ttl > 30*24*time.Hour {
		return api.Token{}, errs.New(errs.Invalid, "a token cannot be good for %s", ttl).WithNext("choose a time up to 720h")
	}
	ca, err := c.authority()
	if err != nil {
		return api.Token{}, err
	}
	t, err := pki.NewToken(ca.PublicKey(), c.addresses())
	if err != nil {
		return api.Token{}, err
	}
	expires := time.Now().UTC().Add(ttl)
	if _, err := c.node.Propose(ctx, by(ctx), record.TokenNew{Hash: t.Hash(), Role: role, Expires: expires}); err != nil {
		return api.Token{}, err
	}
	return api.Token{Token: t.String(), Role: role, Expires: expires}, nil
}

// Operators are the people who may use the cluster, by name.
func (c *Coordinator) Operators(context.Context) ([]api.Operator, error) {
	if _, err := c.leading(); err != nil {
		return nil, err
	}
	return sorted(c.node.View().Operators), nil
}

// SetOperator lists a person, or with role "" removes them.
func (c *Coordinator) SetOperator(ctx context.Context, op api.Operator) error {
	if _, err := c.leading(); err != nil {
		return err
	}
	if err := pki.ValidName(op.Name); err != nil {
		return err
	}
	if op.Role != "" {
		key, err := pki.ParsePublicKey(op.Key)
		if err != nil {
			return errs.New(errs.Invalid, "the key of %s: %w", op.Name, err)
		}
		op.Key = pki.Format(key) // without its comment: one key, one text
	}
	if _, err := c.node.Propose(ctx, by(ctx), record.OperatorSet{Operator: op}); err != nil {
		return err
	}
	c.links.Disconnect(func(p pki.Principal) bool { // what they may do has changed
		return p.Role == pki.RoleOperator && p.Name == op.Name && p.Level != op.Role
	})
	return nil
}

// Cordon keeps anything new off a host, or lets it there again.
func (c *Coordinator) Cordon(ctx context.Context, host string, on bool) (api.Host, error) {
	l, err := c.leading()
	if err != nil {
		return api.Host{}, err
	}
	if _, err := c.node.Propose(ctx, by(ctx), record.HostCordon{Name: host, On: on}); err != nil {
		return api.Host{}, err
	}
	h, err := c.hostRecord(host)
	if err != nil {
		return api.Host{}, err
	}
	return l.hostNow(h, time.Now()), nil
}

// LimitHost limits what the host's sources send together; the host hears of it in the answer to its next heartbeat, and with
// each move that begins there.
func (c *Coordinator) LimitHost(ctx context.Context, host string, bytesPerSecond int64) (api.Host, error) {
	l, err := c.leading()
	if err != nil {
		return api.Host{}, err
	}
	if _, err := c.node.Propose(ctx, by(ctx), record.HostBandwidth{Name: host, BytesPerSecond: bytesPerSecond}); err != nil {
		return api.Host{}, err
	}
	h, err := c.hostRecord(host)
	if err != nil {
		return api.Host{}, err
	}
	return l.hostNow(h, time.Now()), nil
}

// RemoveHost forgets a host that owns nothing any more, and hangs up on it.
func (c *Coordinator) RemoveHost(ctx context.Context, name string) error {
	l, err := c.leading()
	if err != nil {
		return err
	}
	if _, err := c.node.Propose(ctx, by(ctx), record.HostRemove{Name: name}); err != nil {
		return err
	}
	l.presence.forget(name)
	c.links.Disconnect(func(p pki.Principal) bool {
		return p.Name == name && (p.Role == pki.RoleWorker || p.Role == pki.RoleLapsed)
	})
	return nil
}
