package network

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var ctx = context.Background()

// lan is a bridge in a namespace of its own with hosts on it, each a namespace with an eth0. All of it goes with the test.
type lan struct {
	t     testing.TB
	dir   string
	ports int
}

func newLAN(t testing.TB) *lan {
	t.Helper()
	l := &lan{t: t, dir: t.TempDir()}
	l.namespace("switch")
	l.in("switch", func() error {
		return withHandle(func(h *netlink.Handle) error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "br0"
			// A learning switch without the delay in which a new port is mute.
			if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
				return err
			}
			return linkUp("br0")
		})
	})
	return l
}

func (l *lan) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lan) namespace(name string) {
	l.t.Helper()
	if err := makeNamespace(l.path(name)); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := Delete(ctx, l.path(name)); err != nil {
			l.t.Error(err)
		}
	})
	l.in(name, func() error { return linkUp("lo") })
}

// host adds a host with these addresses.
func (l *lan) host(name string, addresses ...string) {
	l.t.Helper()
	l.namespace(name)
	ns, err := openNamespace(l.path(name))
	if err != nil {
		l.t.Fatal(err)
	}
	defer ns.Close()
	l.ports++
	port := "p" + string(rune('0'+l.ports))
	l.in("switch", func() error {
		return withHandle(func(h *netlink.Handle) error {
			bridge, err := h.LinkByName("br0")
			if err != nil {
				return err
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MasterIndex = port, bridge.Attrs().Index
			veth := &netlink.Veth{LinkAttrs: attrs, PeerName: eth0, PeerNamespace: netlink.NsFd(int(ns.Fd()))}
			if err := h.LinkAdd(veth); err != nil {
				return err
			}
			return linkUp(port)
		})
	})
	l.in(name, func() error {
		for _, a := range addresses {
			err := withLink(eth0, func(h *netlink.Handle, link netlink.Link) error {
				return addAddress(h, link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a)), Flags: unix.IFA_F_NODAD})
			})
			if err != nil {
				return err
			}
		}
		return linkUp(eth0)
	})
}

// in runs f in a host's network; f must not fail.
func (l *lan) in(name string, f func() error) {
	l.t.Helper()
	if err := within(l.path(name), f); err != nil {
		l.t.Fatalf("in %s: %v", name, err)
	}
}

// workload makes a workload's namespace on a host.
func (l *lan) workload(host, name string, cfg Config) string {
	l.t.Helper()
	path := l.path(name)
	l.in(host, func() error { return Create(ctx, path, cfg) })
	l.t.Cleanup(func() {
		if err := Delete(ctx, path); err != nil {
			l.t.Error(err)
		}
	})
	return path
}

// mac is the Ethernet address of a namespace's eth0.
func mac(t testing.TB, nsPath string) string {
	t.Helper()
	var got net.HardwareAddr
	err := within(nsPath, func() error {
		return withLink(eth0, func(_ *netlink.Handle, l netlink.Link) error { got = l.Attrs().HardwareAddr; return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return got.String()
}

// neighbour is the Ethernet address that a host knows for an IP address, "" if none.
func (l *lan) neighbour(host, addr string) (known string) {
	l.t.Helper()
	l.in(host, func() error {
		return withHandle(func(h *netlink.Handle) error {
			all, err := list(func() ([]netlink.Neigh, error) { return h.NeighList(0, netlink.FAMILY_ALL) })
			for _, n := range all {
				if n.IP.String() == addr && n.State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED) == 0 {
					known = n.HardwareAddr.String()
				}
			}
			return err
		})
	})
	return known
}

// forget makes a host forget all its neighbours.
func (l *lan) forget(host string) {
	l.t.Helper()
	l.in(host, func() error {
		return withHandle(func(h *netlink.Handle) error {
			all, err := list(func() ([]netlink.Neigh, error) { return h.NeighList(0, netlink.FAMILY_ALL) })
			for _, n := range all {
				_ = h.NeighDel(&n)
			}
			return err
		})
	})
}

// tables are the names of a namespace's nftables tables.
func tables(t testing.TB, nsPath string) (names []string) {
	t.Helper()
	err := within(nsPath, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		all, err := c.ListTables()
		for _, table := range all {
			names = append(names, table.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// eventually waits for a condition that another party brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); runtime.Gosched() {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

// listen and dial open TCP sockets that belong to a namespace wherever they are used.
func (l *lan) listen(nsPath, address string) net.Listener {
	l.t.Helper()
	var ln net.Listener
	err := within(nsPath, func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { ln.Close() })
	return ln
}

func (l *lan) dial(nsPath, address string, timeout time.Duration) (c net.Conn, err error) {
	l.t.Helper()
	// One address and no fallback: the dialer then opens its socket on this thread.
	err = within(nsPath, func() (err error) {
		d := net.Dialer{Timeout: timeout, FallbackDelay: -1}
		c, err = d.Dial("tcp", address)
		return err
	})
	if c != nil {
		l.t.Cleanup(func() { c.Close() })
	}
	return c, err
}
