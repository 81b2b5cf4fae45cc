package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// HoldAddress gives the host an adopted workload's address, on the given link or with "" on the one with an address in the
// same subnet. An address that some link already has is left as it is. Who must not be heard yet fences the address first.
func HoldAddress(ctx context.Context, link string, address netip.Prefix) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if held, err := HasAddress(address.Addr()); err != nil || held {
		return err
	}
	on, err := hostLink(link, address)
	if err != nil {
		return err
	}
	// A preferred lifetime of 0 keeps the host from starting IPv6 connections of its own from an address that will move away;
	// an IPv4 one is a secondary address, which is never preferred.
	a := &netlink.Addr{IPNet: ipNet(address), Flags: unix.IFA_F_NODAD}
	if address.Addr().Is6() {
		const forever = 1<<32 - 1
		a.ValidLft, a.PreferedLft = forever, 0
	}
	return withHandle(func(h *netlink.Handle) error { return addAddress(h, on, a) })
}

// DropAddress takes the address off the host, whichever link has it. Where it is not is no error.
func DropAddress(ctx context.Context, address netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return eachAddress(address, func(h *netlink.Handle, a netlink.Addr) error {
		link, err := h.LinkByIndex(a.LinkIndex)
		if err == nil {
			defer keepSecondaries(link.Attrs().Name, address)()
			err = h.AddrDel(link, &a)
		}
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !isNoLink(err) {
			return errs.New(errs.Failed, "take address %s off this host: %w", address, err)
		}
		return nil
	})
}

// keepSecondaries keeps the kernel from taking a link's other IPv4 addresses along with the one that came first in their
// subnet, which may be the workload's. The function it returns puts the link's setting back.
func keepSecondaries(link string, address netip.Addr) (restore func()) {
	file := filepath.Join("/proc/sys/net/ipv4/conf", link, "promote_secondaries")
	was, err := os.ReadFile(file)
	if err != nil || !address.Is4() || strings.TrimSpace(string(was)) == "1" {
		return func() {}
	}
	_ = os.WriteFile(file, []byte("1"), 0) // it costs nothing if there are no others
	return func() { _ = os.WriteFile(file, was, 0) }
}

// HasAddress says whether a link of the host has the address.
func HasAddress(address netip.Addr) (held bool, err error) {
	err = eachAddress(address, func(*netlink.Handle, netlink.Addr) error { held = true; return nil })
	return held, err
}

// HolderMAC is the Ethernet address of the link in a namespace, "" for the host's own, that has the address; nil if none has.
func HolderMAC(nsPath string, address netip.Addr) (mac net.HardwareAddr) {
	_ = within(nsPath, func() error {
		return eachAddress(address, func(h *netlink.Handle, a netlink.Addr) error {
			link, err := h.LinkByIndex(a.LinkIndex)
			if err == nil && len(link.Attrs().HardwareAddr) == 6 {
				mac = link.Attrs().HardwareAddr
			}
			return err
		})
	})
	return mac
}

// eachAddress calls f for each place where the calling thread's network has the address.
func eachAddress(address netip.Addr, f func(*netlink.Handle, netlink.Addr) error) error {
	return withHandle(func(h *netlink.Handle) error {
		have, err := list(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
		if err != nil {
			return errs.New(errs.Failed, "list this host's addresses: %w", err)
		}
		for _, a := range have {
			if got, ok := netip.AddrFromSlice(a.IP); ok && got.Unmap() == address {
				if err := f(h, a); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
