package network

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// One announcement may be lost, and neighbours have no other way to learn that the address has moved until theirs expires.
const (
	announcements = 3
	announceEvery = 50 * time.Millisecond
)

// Announce tells the neighbours that the address is here now: by gratuitous ARP, both as a request and as a reply since
// systems differ in which they heed, or by an unsolicited neighbour advertisement. The first has been sent when it returns;
// two more follow in the background, which end early if the address is fenced or gone. A fence does not stop the first:
// call it only where the address may be seen.
func Announce(ctx context.Context, nsPath string, addr netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var senders []*sender
	err := within(nsPath, func() error {
		return eachAddress(addr, func(h *netlink.Handle, a netlink.Addr) error {
			s, err := newSender(h, a.LinkIndex, addr)
			if s != nil {
				senders = append(senders, s)
			}
			return err
		})
	})
	if err == nil && len(senders) == 0 {
		err = errs.New(errs.NotFound, "no link in %s has it", where(nsPath))
	}
	for _, s := range senders {
		if err == nil {
			err = s.send()
		}
	}
	if err != nil {
		closeAll(senders)
		return errs.New(errs.KindOf(err), "announce address %s: %w", addr, err)
	}
	go repeat(nsPath, addr, senders)
	return nil
}

// repeat sends the later announcements, for about 100 ms.
func repeat(nsPath string, addr netip.Addr, senders []*sender) {
	defer closeAll(senders)
	for range announcements - 1 {
		<-time.After(announceEvery)
		// The senders' sockets see no fence: nftables never hears of what is written straight to a link.
		if fenced, err := Fenced(context.Background(), nsPath, addr); err != nil || fenced || !addressIn(nsPath, addr) {
			return
		}
		for _, s := range senders {
			_ = s.send() // the first one went out; the link may have gone since
		}
	}
}

func addressIn(nsPath string, addr netip.Addr) (held bool) {
	err := within(nsPath, func() (err error) {
		held, err = HasAddress(addr)
		return err
	})
	return err == nil && held
}

// sender announces one address on one link.
type sender struct {
	socket *os.File
	link   int
	frames [][]byte // whole Ethernet frames
}

// newSender opens a socket on the link; links that are down or have no Ethernet address, like lo, have none and no error.
func newSender(h *netlink.Handle, index int, addr netip.Addr) (*sender, error) {
	link, err := h.LinkByIndex(index)
	if err != nil {
		return nil, errs.New(errs.Failed, "look at link %d: %w", index, err)
	}
	mac := link.Attrs().HardwareAddr
	if len(mac) != 6 || link.Attrs().Flags&net.FlagUp == 0 || link.Attrs().Flags&net.FlagLoopback != 0 {
		return nil, nil
	}
	// Protocol 0 receives nothing: this socket only sends.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errs.New(errs.Failed, "open a packet socket: %w", err)
	}
	frames := [][]byte{neighbourAdvertisement(mac, addr)}
	if addr.Is4() {
		frames = [][]byte{gratuitousARP(arpRequest, mac, addr), gratuitousARP(arpReply, mac, addr)}
	}
	return &sender{socket: os.NewFile(uintptr(fd), "announce"), link: index, frames: frames}, nil
}

func (s *sender) send() error {
	for _, f := range s.frames {
		to := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(f[12:14]), Ifindex: s.link, Halen: 6}
		copy(to.Addr[:], f[:6])
		if err := unix.Sendto(int(s.socket.Fd()), f, 0, to); err != nil {
			return errs.New(errs.Failed, "send on link %d: %w", s.link, err)
		}
	}
	return nil
}

func closeAll(senders []*sender) {
	for _, s := range senders {
		s.socket.Close()
	}
}
