package network

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// withHandle runs f with a netlink socket of the calling thread's network namespace.
func withHandle(f func(*netlink.Handle) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return errs.New(errs.Failed, "open a netlink socket: %w", err)
	}
	defer h.Close()
	return f(h)
}

// withLink is withHandle for one link.
func withLink(name string, f func(*netlink.Handle, netlink.Link) error) error {
	return withHandle(func(h *netlink.Handle) error {
		link, err := h.LinkByName(name)
		if isNoLink(err) {
			return errs.New(errs.NotFound, "there is no link %s here: %w", name, err)
		}
		if err != nil {
			return errs.New(errs.Failed, "look for link %s: %w", name, err)
		}
		return f(h, link)
	})
}

// list repeats a netlink dump that a change interrupted in the middle: what it gave may be neither the old list nor the new.
func list[T any](dump func() ([]T, error)) (all []T, err error) {
	const tries = 10
	for range tries {
		if all, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, err
}

func isNoLink(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none) || errors.Is(err, unix.ENODEV)
}

func linkExists(name string) (bool, error) {
	err := withLink(name, func(*netlink.Handle, netlink.Link) error { return nil })
	if errs.KindOf(err) == errs.NotFound {
		return false, nil
	}
	return err == nil, err
}

func linkUp(name string) error {
	return withLink(name, func(h *netlink.Handle, link netlink.Link) error {
		if err := h.LinkSetUp(link); err != nil {
			return errs.New(errs.Failed, "set link %s up: %w", name, err)
		}
		return nil
	})
}

// removeEth0 removes eth0 at once: the kernel takes its time with the links of a namespace that ended.
func removeEth0() error {
	err := withLink(eth0, func(h *netlink.Handle, link netlink.Link) error {
		if err := h.LinkDel(link); err != nil {
			return errs.New(errs.Failed, "remove link %s: %w", eth0, err)
		}
		return nil
	})
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	return err
}

// LinkFor names the host's link that an address would live on: the given one, or with "" the one that has an address in the
// same subnet. errs.Refused if there is none.
func LinkFor(link string, address netip.Prefix) (string, error) {
	found, err := hostLink(link, address)
	if err != nil {
		return "", err
	}
	return found.Attrs().Name, nil
}

func hostLink(name string, address netip.Prefix) (found netlink.Link, err error) {
	if !address.IsValid() {
		return nil, errs.New(errs.Invalid, "a workload's own network needs an address of the form 10.0.0.50/24")
	}
	if name != "" {
		err := withLink(name, func(_ *netlink.Handle, l netlink.Link) error { found = l; return nil })
		if err != nil {
			return nil, errs.New(errs.Refused, "address %s cannot live here: %w", address, err).
				WithNext("name one of this host's links with --link, or leave it out")
		}
		return found, nil
	}
	err = withHandle(func(h *netlink.Handle) error {
		links, err := list(h.LinkList)
		if err != nil {
			return errs.New(errs.Failed, "list this host's links: %w", err)
		}
		best := -1
		for _, l := range links {
			if l.Attrs().Flags&net.FlagLoopback != 0 || l.Attrs().Flags&net.FlagUp == 0 {
				continue
			}
			have, err := globalAddresses(h, l)
			if err != nil {
				return err
			}
			for _, a := range have {
				if a.Addr() != address.Addr() && a.Masked().Contains(address.Addr()) && a.Bits() > best {
					found, best = l, a.Bits()
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, errs.New(errs.Refused, "no link of this host has an address in the subnet of %s", address).
			WithNext("give the host an address in %s, or name the link with --link", address.Masked())
	}
	return found, nil
}

// globalAddresses are the link's addresses but for link-local ones.
func globalAddresses(h *netlink.Handle, link netlink.Link) ([]netip.Prefix, error) {
	have, err := list(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, errs.New(errs.Failed, "list the addresses of %s: %w", link.Attrs().Name, err)
	}
	var out []netip.Prefix
	for _, a := range have {
		addr, ok := netip.AddrFromSlice(a.IP)
		if ones, _ := a.Mask.Size(); ok && !addr.Unmap().IsLinkLocalUnicast() {
			out = append(out, netip.PrefixFrom(addr.Unmap(), ones))
		}
	}
	return out, nil
}

func addAddress(h *netlink.Handle, link netlink.Link, a *netlink.Addr) error {
	if err := h.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return errs.New(errs.Failed, "give %s address %s: %w", link.Attrs().Name, a.IPNet, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
