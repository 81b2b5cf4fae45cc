package network

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// eth0 is the one link, besides lo, of a namespace that Create made.
const eth0 = "eth0"

// fresh is what eth0 is called when it is made: kernels before 6.15 refuse the name of a link that the host has, which may well be
// eth0, even in another namespace.
const fresh = "drover-fresh"

// Config is what a workload's own network looks like.
type Config struct {
	Address netip.Prefix // the workload's address with its subnet
	Gateway netip.Addr   // of the default route; the zero Addr means none
	Link    string       // the host's link to be on; "" is the one with an address in the same subnet
	// Fenced puts a fence around the address before it is set and the link is up: no other host ever hears of it. Without
	// it a fence that is there stays: only Unfence lifts one.
	Fenced bool
}

// Create makes the network namespace nsPath with lo and eth0 up and the address set. Repeating it completes what is missing;
// a namespace with another address is an errs.Conflict. After an error nothing is left of a namespace that was not there
// before.
func Create(ctx context.Context, nsPath string, cfg Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if nsPath == "" {
		return errs.New(errs.Invalid, "a network namespace needs a path to be bound to")
	}
	parent, err := hostLink(cfg.Link, cfg.Address)
	if err != nil {
		return err
	}
	_, err = Inode(nsPath)
	existed := err == nil
	if !existed {
		if err := makeNamespace(nsPath); err != nil {
			return err
		}
	}
	if err := furnish(ctx, nsPath, parent, cfg); err != nil {
		if !existed {
			_ = Delete(context.WithoutCancel(ctx), nsPath)
		}
		return errs.New(errs.KindOf(err), "set up network namespace %s: %w", nsPath, err)
	}
	return nil
}

// furnish brings a namespace from whatever state it is in to that of cfg, in an order that keeps the address unseen until the
// fence, if one is asked for, stands.
func furnish(ctx context.Context, nsPath string, parent netlink.Link, cfg Config) error {
	var there bool
	err := within(nsPath, func() (err error) {
		if there, err = linkExists(eth0); err == nil && !there {
			there, err = linkExists(fresh)
		}
		return err
	})
	if err != nil {
		return err
	}
	if cfg.Fenced {
		if err := Fence(ctx, nsPath, cfg.Address.Addr()); err != nil {
			return err
		}
	}
	if !there {
		if err := addMacvlan(nsPath, parent); err != nil {
			return err
		}
	}
	return within(nsPath, func() error {
		if err := linkUp("lo"); err != nil {
			return err
		}
		if err := nameEth0(); err != nil {
			return err
		}
		if err := silenceIPv6(eth0); err != nil {
			return err
		}
		if err := setAddress(eth0, cfg.Address); err != nil {
			return err
		}
		if err := linkUp(eth0); err != nil {
			return err
		}
		return setGateway(cfg.Address, cfg.Gateway)
	})
}

// addMacvlan makes the link that will be eth0 in the namespace at once, not in the host first: no udev rule of the host gets to
// rename it or to give it a MAC address made from its name.
func addMacvlan(nsPath string, parent netlink.Link) error {
	ns, err := openNamespace(nsPath)
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fresh
	attrs.ParentIndex = parent.Attrs().Index
	attrs.Namespace = netlink.NsFd(int(ns.Fd()))
	return withHandle(func(h *netlink.Handle) error {
		if err := h.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
			return errs.New(errs.Failed, "make a macvlan on %s: %w", parent.Attrs().Name, err).
				WithNext("the kernel needs CONFIG_MACVLAN, and %s must be an Ethernet link", parent.Attrs().Name)
		}
		return nil
	})
}

// nameEth0 gives a fresh link its name; one that has it is left as it is.
func nameEth0() error {
	err := withLink(fresh, func(h *netlink.Handle, link netlink.Link) error {
		if err := h.LinkSetName(link, eth0); err != nil {
			return errs.New(errs.Failed, "name link %s %s: %w", fresh, eth0, err)
		}
		return nil
	})
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	return err
}

// silenceIPv6 keeps the kernel from giving the link addresses of its own, from asking for routers and from announcing an
// address by checking that it is not taken. A kernel without IPv6 has nothing to silence.
func silenceIPv6(link string) error {
	dir := filepath.Join("/proc/sys/net/ipv6/conf", link)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	const addrGenNone = "1"
	for key, value := range map[string]string{
		"addr_gen_mode": addrGenNone, "autoconf": "0", "accept_ra": "0", "accept_dad": "0", "router_solicitations": "0",
	} {
		if err := os.WriteFile(filepath.Join(dir, key), []byte(value), 0); err != nil {
			return errs.New(errs.Failed, "turn off IPv6 autoconfiguration of %s: %w", link, err)
		}
	}
	return nil
}

// setAddress gives the link its one address.
func setAddress(name string, address netip.Prefix) error {
	return withLink(name, func(h *netlink.Handle, link netlink.Link) error {
		have, err := globalAddresses(h, link)
		if err != nil {
			return err
		}
		if len(have) > 0 && have[0] == address {
			return nil
		}
		if len(have) > 0 {
			return errs.New(errs.Conflict, "%s already has address %s, not %s", name, have[0], address).
				WithNext("remove the workload that has this namespace first")
		}
		return addAddress(h, link, &netlink.Addr{IPNet: ipNet(address), Flags: unix.IFA_F_NODAD})
	})
}

// setGateway makes the default route. A gateway outside the subnet is taken to be on the link, as for a /32.
func setGateway(address netip.Prefix, gateway netip.Addr) error {
	if !gateway.IsValid() {
		return nil
	}
	return withLink(eth0, func(h *netlink.Handle, link netlink.Link) error {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice(), Dst: everywhere(address.Addr())}
		if !address.Contains(gateway) {
			route.Flags = int(netlink.FLAG_ONLINK)
		}
		if err := h.RouteReplace(route); err != nil {
			return errs.New(errs.Failed, "set the default route to %s: %w", gateway, err)
		}
		return nil
	})
}

func everywhere(family netip.Addr) *net.IPNet {
	bits := family.BitLen()
	return &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
}
