package link

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/pki"
)

const (
	// lookAgain is how long a renewal may sleep: clocks are set, and machines sleep too.
	lookAgain = time.Hour
	// retryPart of what is left of a certificate passes until a failed renewal is tried again, at most lookAgain.
	retryPart = 20
)

// Renewal keeps a daemon's certificates from running out: it renews them when a third of their life is left, and has its pool
// and its server show the new ones from then on. Connections that were made by the old ones last as long as those.
type Renewal struct {
	// Own is who the daemon begins as.
	Own *pki.Identity
	// Ask gets an identity with new certificates for the same key.
	Ask func(ctx context.Context, id *pki.Identity) (*pki.Identity, error)
	// Save keeps it over a restart; nil keeps it nowhere.
	Save   func(*pki.Identity) error
	Pool   *Pool
	Server *Server // nil for who serves nobody
	Log    *slog.Logger

	turn sync.Mutex                   // held while the identity changes
	now  atomic.Pointer[pki.Identity] // nil until the first renewal
}

// Run renews until ctx is done.
func (r *Renewal) Run(ctx context.Context) {
	for wait := time.Until(r.Identity().Due()); ; {
		t := time.NewTimer(min(max(wait, time.Second), lookAgain))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		now := r.Identity()
		if wait = time.Until(now.Due()); wait > 0 {
			continue
		}
		next, err := r.Renew(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			wait = time.Until(now.Expires()) / retryPart
			r.Log.Warn("certificates could not be renewed; it is tried again", "expires", now.Expires(), "error", err)
			continue
		}
		wait = time.Until(next.Due())
		r.Log.Info("certificates were renewed", "expires", next.Expires())
	}
}

// Renew renews at once, as when the authority has a new key.
func (r *Renewal) Renew(ctx context.Context) (*pki.Identity, error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	next, err := r.Ask(ctx, r.Identity())
	if err != nil {
		return nil, err
	}
	return next, r.show(next)
}

// Trust has the daemon trust other authorities from now on.
func (r *Renewal) Trust(trust pki.Trust) error {
	r.turn.Lock()
	defer r.turn.Unlock()
	next := *r.Identity()
	next.Trust = trust
	if err := next.Genuine(); err != nil { // its own certificates must remain good
		return err
	}
	return r.show(&next)
}

// Follow has the daemon trust those authorities and be certified by the one of them that signs. It trusts more before it shows what is
// new, and less only once it does: what it shows it trusts at any time.
func (r *Renewal) Follow(ctx context.Context, trust pki.Trust, signing ssh.PublicKey) error {
	both := slices.Clone(r.Identity().Trust)
	for _, key := range trust {
		if !both.Has(key) {
			both = append(both, key)
		}
	}
	if !both.Same(r.Identity().Trust) {
		if err := r.Trust(both); err != nil {
			return err
		}
	}
	if !r.Identity().SignedBy(signing) {
		if _, err := r.Renew(ctx); err != nil {
			return err
		}
	}
	if !trust.Same(r.Identity().Trust) {
		return r.Trust(trust)
	}
	return nil
}

// show saves before it shows: who has seen the new certificate will see it after a restart too.
func (r *Renewal) show(next *pki.Identity) error {
	if r.Save != nil {
		if err := r.Save(next); err != nil {
			return err
		}
	}
	r.now.Store(next)
	r.Pool.Become(next)
	if r.Server != nil {
		r.Server.Become(next)
	}
	return nil
}

// Identity is who the daemon is now, with the newest certificates.
func (r *Renewal) Identity() *pki.Identity {
	if id := r.now.Load(); id != nil {
		return id
	}
	return r.Own
}

// Expires is when the certificates that are shown now end.
func (r *Renewal) Expires() time.Time { return r.Identity().Expires() }
