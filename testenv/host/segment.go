package host

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// segment is one Ethernet segment: a bridge in a network namespace that only this process holds, so that the kernel removes it,
// and every cable in it, when the process ends.
type segment struct {
	ns     netns.NsHandle
	net    *netlink.Handle
	bridge *netlink.Bridge
}

func newSegment() (*segment, error) {
	s := &segment{ns: netns.None()}
	if err := s.make(); err != nil {
		return nil, errs.New(errs.Failed, "make the bed's network: %w", err)
	}
	return s, nil
}

func (s *segment) make() (err error) {
	if s.ns, err = newNetns(); err != nil {
		return err
	}
	if s.net, err = netlink.NewHandleAt(s.ns, unix.NETLINK_ROUTE); err != nil {
		return err
	}
	s.bridge, err = s.addBridge("segment")
	return err
}

// addBridge makes a bridge that forwards everything at once: no spanning tree, no multicast snooping.
func (s *segment) addBridge(name string) (*netlink.Bridge, error) {
	off := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: &off}
	if err := s.net.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("add bridge %s: %w", name, err)
	}
	if err := s.net.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("start bridge %s: %w", name, err)
	}
	return bridge, nil
}

func (s *segment) close() error {
	if s.net != nil {
		s.net.Close()
	}
	return s.ns.Close()
}

// inside runs f on a thread that is in the segment's namespace.
func (s *segment) inside(f func() error) error {
	return onOwnThread(func() error {
		if err := netns.Set(s.ns); err != nil {
			return err
		}
		return f()
	})
}

// newNetns makes an empty network namespace whose interfaces speak no IPv6 of their own accord.
func newNetns() (ns netns.NsHandle, err error) {
	err = onOwnThread(func() error {
		if ns, err = netns.New(); err != nil {
			return err
		}
		for _, which := range []string{"all", "default"} {
			file := "/proc/sys/net/ipv6/conf/" + which + "/disable_ipv6"
			if err := os.WriteFile(file, []byte("1"), 0); err != nil && !os.IsNotExist(err) { // a kernel without IPv6 will do
				return err
			}
		}
		return nil
	})
	return ns, err
}

// onOwnThread runs f on a thread that may change its namespaces: the thread ends with f.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		done <- f()
	}()
	return <-done
}
