package coordinator

import (
	"context"
	"net/http"
	"slices"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/consensus"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/pki"
)

const (
	// handOverWithin bounds how long a new leader may take to be known, in all.
	handOverWithin = 10 * time.Second
	// hangUpAfter is how long a removed coordinator's connections last: the answer to its removal may go through one of them.
	hangUpAfter = time.Second
)

// RemoveCoordinator takes a coordinator out of the consensus, then out of the record, and hangs up on it. What was done of it
// before a crash is not done twice.
func (c *Coordinator) RemoveCoordinator(ctx context.Context, name string) (api.ClusterStatus, error) {
	if _, err := c.leading(); err != nil {
		return api.ClusterStatus{}, err
	}
	if err := c.node.Fresh(ctx); err != nil {
		return api.ClusterStatus{}, err
	}
	if err := c.mayExpel(ctx, name); err != nil {
		return api.ClusterStatus{}, err
	}
	if name == c.cfg.Name {
		return c.askSuccessor(ctx, name)
	}
	if err := c.expel(ctx, name); err != nil {
		return api.ClusterStatus{}, err
	}
	time.AfterFunc(hangUpAfter, func() {
		c.links.Disconnect(func(p pki.Principal) bool { return p == pki.Coordinator(name) && c.removed(p) })
	})
	c.log.Info("a coordinator was removed", "name", name, "by", by(ctx))
	return c.Cluster(ctx)
}

func (c *Coordinator) expel(ctx context.Context, name string) error {
	c.membership.Lock()
	defer c.membership.Unlock()
	for _, s := range c.node.Servers() {
		if s.Name != name {
			continue
		}
		if err := c.node.Expel(ctx, s.Peer); err != nil {
			return err
		}
	}
	_, err := c.node.Propose(ctx, by(ctx), record.MemberRemove{Name: name})
	return err
}

// mayExpel refuses what would leave the cluster without a majority that answers.
func (c *Coordinator) mayExpel(ctx context.Context, name string) error {
	known := false
	c.node.Read(func(s *record.State) { _, known = s.Members[name] })
	servers := c.node.Servers()
	if !known && !slices.ContainsFunc(servers, func(s consensus.Server) bool { return s.Name == name }) {
		return errs.New(errs.NotFound, "no coordinator is called %q", name).WithNext("drover status lists them")
	}
	voters, up := 0, 0
	for _, s := range servers {
		if !s.Voter || s.Name == name {
			continue
		}
		voters++
		if s.Name == c.cfg.Name || c.answers(ctx, s.Peer) {
			up++
		}
	}
	switch {
	case voters == 0:
		return errs.New(errs.Conflict, "%s is the only coordinator that has a vote: without it there is no cluster", name).
			WithNext("let another one join first: drover token new --role coordinator")
	case up < voters/2+1:
		return errs.New(errs.Conflict, "without %s there are %d coordinators, and only %d of them answer: nothing could be decided any more", name, voters, up).
			WithNext("bring back those that are silent (drover status), or let another one join first")
	}
	return nil
}

// askSuccessor hands the lead over, and has whoever takes it go on in the caller's name.
func (c *Coordinator) askSuccessor(ctx context.Context, name string) (api.ClusterStatus, error) {
	if err := c.node.HandOver(ctx); err != nil {
		return api.ClusterStatus{}, err
	}
	late := time.NewTimer(handOverWithin)
	defer late.Stop()
	look := time.NewTicker(50 * time.Millisecond) // nothing announces whom the others have elected
	defer look.Stop()
	for {
		if next := c.node.Leader(); next.Name != "" && next.Name != c.cfg.Name {
			transport := c.pool.HTTP(next.Address, pki.Coordinator(next.Name).String()).Transport
			st, err := api.NewClient(&http.Client{Transport: onBehalf{by(ctx), transport}}).RemoveCoordinator(ctx, name)
			if errs.KindOf(err) != errs.Unavailable || err == nil {
				return st, err
			} // it may not have begun to lead
		}
		select {
		case <-ctx.Done():
			return api.ClusterStatus{}, ctx.Err()
		case <-late.C:
			return api.ClusterStatus{}, errs.New(errs.Unavailable, "coordinator %s has handed the lead over, and nobody took up its removal", name).WithNext("try again")
		case <-look.C:
		}
	}
}

// onBehalf names the caller for whom a coordinator asks another one.
type onBehalf struct {
	caller string
	next   http.RoundTripper
}

func (o onBehalf) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(callerHeader, o.caller)
	return o.next.RoundTrip(r)
}
