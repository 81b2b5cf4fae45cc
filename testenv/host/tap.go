package host

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Frames cross a tap behind a virtio-net header, which lets the kernel hand over, and take, up to 64 KiB of one TCP stream at
// once instead of 1500 bytes: that is what makes a relay in user space cheap at 1 Gbit/s.
const (
	headerSize   = 10
	largestFrame = 64<<10 + 512 // with its headers
)

// tap is an Ethernet interface whose cable ends in this process.
type tap struct{ *os.File }

// addTap makes a tap in the segment's namespace and puts it into the bridge. It exists until it is closed.
func (s *segment) addTap(name string, bridge netlink.Link) (tap, error) {
	var t tap
	err := s.inside(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		t.File = os.NewFile(uintptr(fd), name) // only now: a descriptor without an interface cannot be polled
		return nil
	})
	if err == nil {
		err = s.connect(name, bridge)
	}
	if err != nil {
		if t.File != nil {
			t.Close()
		}
		return tap{}, fmt.Errorf("add tap %s: %w", name, err)
	}
	return t, nil
}

func (s *segment) connect(name string, bridge netlink.Link) error {
	link, err := s.net.LinkByName(name)
	if err != nil {
		return err
	}
	if err := s.net.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return s.net.LinkSetUp(link)
}

// setBatches says whether frames of one stream may come together, or each by itself.
func (t tap) setBatches(together bool) error {
	offload := unix.TUN_F_CSUM
	if together {
		offload |= unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, offload) }); err != nil {
		return err
	}
	return failed
}
