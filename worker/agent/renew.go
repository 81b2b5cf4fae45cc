package agent

import (
	"context"
	"time"

	coordinatorapi "drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/transfer/link"
)

// renewTimeout bounds asking one coordinator for certificates.
const renewTimeout = 10 * time.Second

// renew has the cluster certify this worker's key anew. Certificates that have expired, because the machine was off for a day, say, prove
// nothing any more: then the key alone does, which the record knows.
func (a *Agent) renew(ctx context.Context, id *pki.Identity) (*pki.Identity, error) {
	ask := a.coordinators
	if id.Expired() {
		pool := link.NewPoolFor(link.AsLapsed(id), a.dialing()...)
		defer pool.Close()
		ask = a.reach(pool)
	}
	var got coordinatorapi.RenewReply
	err := ask.call(ctx, func(c coordinatorapi.Coordinator) (err error) {
		ctx, cancel := context.WithTimeout(ctx, renewTimeout)
		defer cancel()
		got, err = c.Renew(ctx, pki.Format(id.Signer.PublicKey()))
		return err
	})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "renew the certificates of %s: %w", a.cfg.Name, err)
	}
	host, err := pki.ParseCertificate(got.HostCert)
	if err != nil {
		return nil, errs.New(errs.Failed, "renew the host certificate of %s: %w", a.cfg.Name, err)
	}
	user, err := pki.ParseCertificate(got.UserCert)
	if err != nil {
		return nil, errs.New(errs.Failed, "renew the user certificate of %s: %w", a.cfg.Name, err)
	}
	return id.Renewed(host, user)
}
