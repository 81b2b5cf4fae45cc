package host

import (
	"context"
	"fmt"
	"net"

	"github.com/vishvananda/netns"

	"drover/internal/errs"
)

// Dial connects from the host's network to a numeric address. The connection is the caller's and outlives nothing of the host:
// when the host goes down, it goes silent.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.inNetwork(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, errs.New(errs.Failed, "dial from host %s: %w", h.Name, err)
	}
	return conn, nil
}

// Listen listens in the host's network, at a numeric address.
func (h *Host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var listener net.Listener
	err := h.inNetwork(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, errs.New(errs.Failed, "listen on host %s: %w", h.Name, err)
	}
	return listener, nil
}

// ListenPacket receives datagrams in the host's network, at a numeric address.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := h.inNetwork(func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, errs.New(errs.Failed, "listen on host %s: %w", h.Name, err)
	}
	return conn, nil
}

// inNetwork runs f on a thread in the host's network namespace; sockets that f makes belong there for good. A numeric address
// keeps the net package on that thread.
func (h *Host) inNetwork(f func() error) error {
	return onOwnThread(func() error {
		ns, err := netns.GetFromPid(h.Pid())
		if err != nil {
			return fmt.Errorf("the host is down: %w", err)
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
}
