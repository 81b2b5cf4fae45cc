package workloads

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"

	"github.com/google/nftables"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/worker/network"
)

// netKey is CRIU's name for a tree's network namespace, which drover makes on each host.
const netKey = "drover-net"

// hasNetNS says whether the workload has a network namespace of its own.
func hasNetNS(s workload.Spec) bool { return s.Kind == workload.Run && s.Address != "" }

// netns is where a workload's network namespace is bound, "" if it lives in the host's.
func (h *Host) netns(s workload.Spec) string {
	if !hasNetNS(s) {
		return ""
	}
	return filepath.Join(h.cfg.RunDir, "netns", s.Name)
}

// prefix is the spec's address; valid because the spec is.
func prefix(s workload.Spec) netip.Prefix {
	p, _ := netip.ParsePrefix(s.Address)
	return p
}

// connect makes the workload's address, behind a fence if fenced. An address on the host itself is fenced before it is there.
func (h *Host) connect(ctx context.Context, s workload.Spec, fenced bool) error {
	if s.Address == "" {
		return nil
	}
	if hasNetNS(s) {
		cfg := network.Config{Address: prefix(s), Link: s.Link}
		if s.Gateway != "" {
			gw, err := netip.ParseAddr(s.Gateway)
			if err != nil {
				return errs.New(errs.Invalid, "gateway %q: %w", s.Gateway, err)
			}
			cfg.Gateway = gw
		}
		cfg.Fenced = fenced
		return network.Create(ctx, h.netns(s), cfg)
	}
	if fenced {
		if err := network.Fence(ctx, "", prefix(s).Addr()); err != nil {
			return err
		}
	}
	return network.HoldAddress(ctx, s.Link, prefix(s))
}

// disconnect takes the address off this host, and the fence.
func (h *Host) disconnect(ctx context.Context, s workload.Spec) error {
	if s.Address == "" {
		return nil
	}
	if hasNetNS(s) {
		return network.Delete(ctx, h.netns(s))
	}
	addr := prefix(s).Addr()
	return errors.Join(network.DropAddress(ctx, addr), network.Unfence(ctx, "", addr))
}

// unlock removes the network lock that a dump of a tree in the host's network has left here. Others' locks stay: a namespace of
// the tree's own goes as a whole.
func (h *Host) unlock(s workload.Spec, table string) error {
	if hasNetNS(s) || table == "" {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return errs.New(errs.Failed, "open nftables: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: table}
	c.AddTable(t) // so that deleting one that is gone is no error
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return errs.New(errs.Failed, "remove CRIU's network lock %s: %w", table, err)
	}
	return nil
}

func (h *Host) fence(ctx context.Context, s workload.Spec) error {
	if s.Address == "" {
		return nil
	}
	return network.Fence(ctx, h.netns(s), prefix(s).Addr())
}

// unfence shows the address and tells the neighbours where it is, and then clears away what the fence was made of, which takes longer.
func (h *Host) unfence(ctx context.Context, s workload.Spec) error {
	if s.Address == "" {
		return nil
	}
	ns, addr := h.netns(s), prefix(s).Addr()
	if err := network.Open(ctx, ns, addr); err != nil {
		return err
	}
	if err := network.Announce(ctx, ns, addr); err != nil {
		return err
	}
	return network.Unfence(ctx, ns, addr)
}
