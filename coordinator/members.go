package coordinator

import (
	"context"
	"slices"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/consensus"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/pki"
	"drover/internal/rpc"
	"drover/transfer/link"
)

// Join makes a machine a member. A machine whose reply was lost asks again with the same name and key and gets it again.
func (c *Coordinator) Join(ctx context.Context, req api.JoinRequest) (api.JoinReply, error) {
	if _, err := c.leading(); err != nil {
		return api.JoinReply{}, err
	}
	key, err := pki.ParsePublicKey(req.Key)
	if err != nil {
		return api.JoinReply{}, errs.New(errs.Invalid, "%s cannot join: its key: %w", req.Name, err)
	}
	hash := pki.HashSecret(req.Token)
	if t, err := pki.ParseToken(req.Token); err == nil {
		hash = t.Hash()
	}
	text := pki.Format(key)
	principal := pki.Principal{Role: req.Role, Name: req.Name}
	switch req.Role {
	case pki.RoleWorker:
		_, err = c.node.Propose(ctx, by(ctx), record.HostJoin{Name: req.Name, Address: req.Address, Token: hash, Key: text})
	case pki.RoleCoordinator:
		c.membership.Lock() // the cluster's key does not change meanwhile
		defer c.membership.Unlock()
		_, err = c.node.Propose(ctx, by(ctx), record.MemberJoin{Name: req.Name, Address: req.Address, Token: hash, Key: text})
		if err == nil {
			err = c.node.AddListener(ctx, consensus.Peer{Name: req.Name, Address: req.Address})
		}
	default:
		err = errs.New(errs.Invalid, "%s cannot join as a %q", req.Name, req.Role).WithNext("join as a worker or a coordinator")
	}
	if err != nil {
		return api.JoinReply{}, err
	}
	ca, err := c.authority()
	if err != nil {
		return api.JoinReply{}, err
	}
	host, user, err := ca.Certify(key, principal, pki.MemberLife)
	if err != nil {
		return api.JoinReply{}, errs.New(errs.Failed, "certify %s: %w", req.Name, err)
	}
	reply := api.JoinReply{
		Authority: ca.Trust().String(), HostCert: pki.Format(host), UserCert: pki.Format(user), Coordinators: c.addresses(),
	}
	var next *pki.Authority
	c.node.Read(func(s *record.State) {
		reply.Cluster = s.Cluster
		if trust, _ := trusted(s); trust != nil {
			reply.Authority = trust.String()
			next = c.keys.holder(s.Keys[len(s.Keys)-1].Key)
		}
	})
	if req.Role != pki.RoleCoordinator {
		return reply, nil
	}
	pem, err := ca.PEM()
	if err != nil {
		return api.JoinReply{}, err
	}
	reply.AuthorityKey = string(pem)
	if next != nil && next != ca {
		if pem, err = next.PEM(); err != nil {
			return api.JoinReply{}, err
		}
		reply.NextKey = string(pem)
	}
	return reply, nil
}

// Renew certifies the caller, who has proved who it is by the certificates that it has or, once they have expired, by its key.
func (c *Coordinator) Renew(ctx context.Context, text string) (api.RenewReply, error) {
	if _, err := c.leading(); err != nil {
		return api.RenewReply{}, err
	}
	p, _ := link.PeerFrom(ctx)
	h, err := c.hostRecord(p.Name)
	if err != nil || p.Role != pki.RoleWorker && p.Role != pki.RoleLapsed {
		return api.RenewReply{}, errs.New(errs.Forbidden, "%s is no host of this cluster", p).WithNext("join it again, with a new token")
	}
	key, err := pki.ParsePublicKey(text)
	if err != nil {
		return api.RenewReply{}, errs.New(errs.Invalid, "certify %s: its key: %w", p, err)
	}
	p = pki.Worker(h.Name)
	if pki.Format(key) != h.Key { // who stole the key of a host that has joined anew could go on for ever
		return api.RenewReply{}, errs.New(errs.Forbidden, "%s joined with another key", p).WithNext("join it again, with a new token")
	}
	ca, err := c.authority()
	if err != nil {
		return api.RenewReply{}, err
	}
	host, user, err := ca.Certify(key, p, pki.MemberLife)
	if err != nil {
		return api.RenewReply{}, errs.New(errs.Failed, "certify %s: %w", p, err)
	}
	c.log.Info("a host's certificates were renewed", "host", p.Name)
	return api.RenewReply{HostCert: pki.Format(host), UserCert: pki.Format(user)}, nil
}

// renewOwn is how a coordinator renews its certificates: it holds the authority.
func (c *Coordinator) renewOwn(_ context.Context, id *pki.Identity) (*pki.Identity, error) {
	ca, err := c.authority()
	if err != nil {
		return nil, err
	}
	return ca.Renew(id)
}

// addresses are where the coordinators are reached.
func (c *Coordinator) addresses() (out []string) {
	c.node.Read(func(s *record.State) {
		for _, m := range sorted(s.Members) {
			out = append(out, m.Address)
		}
	})
	return out
}

// admitMembers gives a vote to each coordinator that has joined, once it is up and has the log: one that has joined and was
// never started must not count towards the majority.
func (c *Coordinator) admitMembers(ctx context.Context, _ *lead) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for _, s := range c.node.Servers() {
			if !s.Voter && c.caughtUp(ctx, s.Peer) {
				c.promote(ctx, s.Peer)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// promote gives a coordinator a vote, unless it has been removed meanwhile.
func (c *Coordinator) promote(ctx context.Context, p consensus.Peer) {
	c.membership.Lock()
	defer c.membership.Unlock()
	if !slices.ContainsFunc(c.node.Servers(), func(s consensus.Server) bool { return s.Peer == p }) {
		return
	}
	if err := c.node.Promote(ctx, p); err != nil {
		c.log.Info("a coordinator could not be given a vote yet", "name", p.Name, "error", err)
	} else {
		c.log.Info("a coordinator has a vote now", "name", p.Name)
	}
}

// maxBehind is how many entries a new coordinator may lack when it gets its vote.
const maxBehind = 100

func (c *Coordinator) caughtUp(ctx context.Context, p consensus.Peer) bool {
	st, err := c.askPeer(ctx, p)
	return err == nil && st.Index > 0 && st.Index+maxBehind >= c.node.Applied()
}

// answers says whether a coordinator answers at all.
func (c *Coordinator) answers(ctx context.Context, p consensus.Peer) bool {
	_, err := c.askPeer(ctx, p)
	return err == nil
}

// askPeer asks another coordinator how it stands itself.
func (c *Coordinator) askPeer(ctx context.Context, p consensus.Peer) (st api.ClusterStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err = rpc.Call(ctx, c.pool.HTTP(p.Address, pki.Coordinator(p.Name).String()), "GET", selfPath, nil, &st)
	return st, err
}
