package link

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

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

	now atomic.Pointer[pki.Identity] // nil until the first renewal
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
		next, err := r.renew(ctx, now)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			wait = time.Until(now.Expires()) / retryPart
			r.Log.Warn("certificates could not be renewed; it is tried again", "expires", now.Expires(), "err", err)
			continue
		}
		wait = time.Until(next.Due())
		r.Log.Info("certificates were renewed", "expires", next.Expires())
	}
}

// renew saves before it shows: who has seen the new certificate will see it after a restart too.
func (r *Renewal) renew(ctx context.Context, id *pki.Identity) (*pki.Identity, error) {
	next, err := r.Ask(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.Save != nil {
		if err := r.Save(next); err != nil {
			return nil, err
		}
	}
	r.now.Store(next)
	r.Pool.Become(next)
	if r.Server != nil {
		r.Server.Become(next)
	}
	return next, nil
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
