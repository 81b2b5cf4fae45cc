package consensus

import (
	"context"

	"github.com/hashicorp/raft"

	"drover/internal/errs"
)

// Server is a member of the consensus.
type Server struct {
	Peer
	Voter bool
}

// Servers are the members as this node's newest configuration has them.
func (n *Node) Servers() []Server {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var servers []Server
	for _, s := range f.Configuration().Servers {
		p := peerOf(s.Address)
		servers = append(servers, Server{Peer: p, Voter: s.Suffrage == raft.Voter})
	}
	return servers
}

// AddListener adds a member that gets the log and has no vote: a member that is not there yet then costs no majority.
func (n *Node) AddListener(ctx context.Context, p Peer) error {
	return n.member("add", p, wait(ctx, n.raft.AddNonvoter(raft.ServerID(p.Name), p.raft(), 0, enqueueTimeout)))
}

// Promote gives a member a vote. It should be up and have the log.
func (n *Node) Promote(ctx context.Context, p Peer) error {
	return n.member("promote", p, wait(ctx, n.raft.AddVoter(raft.ServerID(p.Name), p.raft(), 0, enqueueTimeout)))
}

// Expel removes a member.
func (n *Node) Expel(ctx context.Context, p Peer) error {
	return n.member("remove", p, wait(ctx, n.raft.RemoveServer(raft.ServerID(p.Name), 0, enqueueTimeout)))
}

// HandOver gives the lead to another voter that is up to date and returns once this node has it no more. It returns nil if this
// node did not lead.
func (n *Node) HandOver(ctx context.Context) error {
	if !n.Leads() {
		return nil
	}
	if err := wait(ctx, n.raft.LeadershipTransfer()); err != nil {
		return errs.New(errs.Unavailable, "coordinator %s cannot hand the lead over: %w", n.self.Name, err).WithNext("try again")
	}
	return nil
}

func (n *Node) member(what string, p Peer, err error) error {
	if err == nil {
		return nil
	}
	return errs.New(errs.KindOf(n.notLeader(err)), "%s coordinator %s: %w", what, p.Name, err)
}
