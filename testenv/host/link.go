package host

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Link is a host's cable: a veth whose one end is the host's eth0. The other end is in the segment's bridge, or, while the link
// has a shape, in a bridge of its own that a relay joins to the segment's. eth0 itself never changes.
type Link struct {
	host    *Host
	index   int
	segment *segment

	mu    sync.Mutex
	end   netlink.Link // the end outside the host; nil when unplugged
	shape Shape
	cut   bool
	detour
}

// detour is what a shaped link goes through.
type detour struct {
	bridge *netlink.Bridge // the cable's own
	relay  *relay
}

// plug connects a host that has just come up.
func (l *Link) plug(pid int, address string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	inside, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open the host's network: %w", err)
	}
	defer inside.Close()
	name := fmt.Sprintf("cable%d", l.index)
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0",
		PeerNamespace: netlink.NsFd(inside), PeerHardwareAddr: l.mac(),
	}
	if err := l.segment.net.LinkAdd(pair); err != nil {
		return fmt.Errorf("add its cable: %w", err)
	}
	if l.end, err = l.segment.net.LinkByName(name); err != nil {
		return fmt.Errorf("find its cable: %w", err)
	}
	l.shape, l.cut = Shape{}, false
	if err := l.segment.net.LinkSetMaster(l.end, l.segment.bridge); err != nil {
		return fmt.Errorf("plug its cable in: %w", err)
	}
	if err := l.segment.net.LinkSetUp(l.end); err != nil {
		return fmt.Errorf("start its cable: %w", err)
	}
	return configure(inside, address)
}

// mac is an address that stays the same when the host is booted again.
func (l *Link) mac() net.HardwareAddr {
	sum := sha256.Sum256([]byte(l.host.bed.ID + "/" + l.host.Name))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], byte(l.index)}
}

// configure starts lo and eth0 inside the host.
func configure(inside netns.NsHandle, address string) error {
	h, err := netlink.NewHandleAt(inside, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find its %s: %w", name, err)
		}
		if name == "eth0" && address != "" {
			addr, err := netlink.ParseAddr(address)
			if err != nil {
				return fmt.Errorf("address %q: %w", address, err)
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := h.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("add address %s: %w", address, err)
			}
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("start its %s: %w", name, err)
		}
	}
	return nil
}

// unplug removes the cable of a host that went down; its veth may be gone already.
func (l *Link) unplug() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end == nil {
		return nil
	}
	err := l.segment.net.LinkDel(l.end)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		err = nil
	}
	l.end = nil
	return errors.Join(err, l.removeDetour())
}

// Set gives the link a shape, in both directions, or takes it away (Shape{}). Frames on their way when a link gets its first
// shape or loses its last are lost, as in a change of cables; a change from shape to shape loses none.
func (l *Link) Set(s Shape) error {
	if err := s.check(); err != nil {
		return err
	}
	return l.change(func() { l.shape = s })
}

// Cut makes the link lose every frame, silently: eth0 keeps its carrier, as when a switch further on fails.
func (l *Link) Cut() error { return l.change(func() { l.cut = true }) }

// Heal ends a Cut; the link has its shape again.
func (l *Link) Heal() error { return l.change(func() { l.cut = false }) }

func (l *Link) change(edit func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end == nil {
		return errs.New(errs.Unavailable, "link of host %s: the host is down", l.host.Name).WithNext("boot it")
	}
	edit()
	if err := l.route(); err != nil {
		return errs.New(errs.Failed, "link of host %s: %w", l.host.Name, err)
	}
	return nil
}

// route leads the cable to where its shape and cut want it.
func (l *Link) route() error {
	if l.shape == (Shape{}) {
		if err := l.removeDetour(); err != nil {
			return err
		}
	} else if l.relay == nil {
		if err := l.addDetour(); err != nil {
			return errors.Join(err, l.removeDetour())
		}
	}
	if l.relay != nil {
		if err := l.relay.set(l.shape); err != nil {
			return err
		}
	}
	switch {
	case l.cut:
		return l.segment.net.LinkSetNoMaster(l.end)
	case l.relay != nil:
		return l.segment.net.LinkSetMaster(l.end, l.bridge)
	default:
		return l.segment.net.LinkSetMaster(l.end, l.segment.bridge)
	}
}

// addDetour builds: cable – own bridge – tap – relay – tap – segment's bridge.
func (l *Link) addDetour() (err error) {
	if l.bridge, err = l.segment.addBridge(fmt.Sprintf("stub%d", l.index)); err != nil {
		return err
	}
	near, err := l.segment.addTap(fmt.Sprintf("near%d", l.index), l.bridge)
	if err != nil {
		return err
	}
	far, err := l.segment.addTap(fmt.Sprintf("far%d", l.index), l.segment.bridge)
	if err != nil {
		near.Close()
		return err
	}
	l.relay = startRelay(near, far)
	return nil
}

func (l *Link) removeDetour() error {
	if l.relay != nil {
		l.relay.close() // and with them the taps go
		l.relay = nil
	}
	if l.bridge == nil {
		return nil
	}
	bridge := l.bridge
	l.bridge = nil
	return l.segment.net.LinkDel(bridge)
}
