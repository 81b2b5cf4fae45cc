package network

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// WhoHas asks the network that a host's link is on who has an address, as a host does that is about to take it (RFC 5227,
// 2.1 and RFC 4862, 5.4.2): nobody learns anything from the question. It listens for the given time and returns the Ethernet
// addresses of those that answered, none if nobody did. What lives on this host does not answer.
func WhoHas(ctx context.Context, link string, addr netip.Addr, wait time.Duration) (holders []net.HardwareAddr, err error) {
	err = withLink(link, func(_ *netlink.Handle, l netlink.Link) error {
		mac := l.Attrs().HardwareAddr
		if len(mac) != 6 {
			return errs.New(errs.Refused, "link %s is no Ethernet link", link)
		}
		protocol, question, answer := uint16(unix.ETH_P_ARP), arp(arpRequest, mac, netip.IPv4Unspecified(), addr), arpAnswer
		if addr.Is6() {
			protocol, question, answer = unix.ETH_P_IPV6, neighbourSolicitation(mac, addr), neighbourAnswer
		}
		s, err := packetSocket(l.Attrs().Index, protocol)
		if err != nil {
			return err
		}
		defer s.Close()
		to := &unix.SockaddrLinklayer{Protocol: bigEndian(protocol), Ifindex: l.Attrs().Index, Halen: 6}
		copy(to.Addr[:], question[:6])
		if err := unix.Sendto(int(s.Fd()), question, 0, to); err != nil {
			return errs.New(errs.Failed, "send on %s: %w", link, err)
		}
		return listen(ctx, s, wait, func(frame []byte) {
			if from := answer(frame, addr); from != nil && !slices.ContainsFunc(holders, func(h net.HardwareAddr) bool { return bytes.Equal(h, from) }) {
				holders = append(holders, from)
			}
		})
	})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "ask who has %s: %w", addr, err)
	}
	return holders, nil
}

// packetSocket opens a socket for whole frames of one protocol on one link.
func packetSocket(link int, protocol uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, errs.New(errs.Failed, "open a packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(protocol), Ifindex: link}); err != nil {
		unix.Close(fd)
		return nil, errs.New(errs.Failed, "listen on link %d: %w", link, err)
	}
	return os.NewFile(uintptr(fd), "probe"), nil
}

func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

// listen gives every frame that comes in time to f.
func listen(ctx context.Context, s *os.File, wait time.Duration, f func([]byte)) error {
	if err := s.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return errs.New(errs.Failed, "wait for answers: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 2048)
	for {
		n, err := s.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ctx.Err()
		case err != nil:
			return errs.New(errs.Failed, "wait for answers: %w", err)
		}
		f(buf[:n])
	}
}

// arpAnswer is the sender of an ARP message that says who has addr, nil of any other frame.
func arpAnswer(frame []byte, addr netip.Addr) net.HardwareAddr {
	const sender, protocolAddress = 22, 28
	if len(frame) < 42 || frame[21] != arpReply || !bytes.Equal(frame[protocolAddress:protocolAddress+4], addr.AsSlice()) {
		return nil
	}
	return bytes.Clone(frame[sender : sender+6])
}

// neighbourAnswer is the sender of a neighbour advertisement about addr, nil of any other frame.
func neighbourAnswer(frame []byte, addr netip.Addr) net.HardwareAddr {
	const nextHeader, icmp, target = 20, 54, 62
	if len(frame) < target+16 || frame[nextHeader] != 58 || frame[icmp] != 136 || !bytes.Equal(frame[target:target+16], addr.AsSlice()) {
		return nil
	}
	return bytes.Clone(frame[6:12])
}
