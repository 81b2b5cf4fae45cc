package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/testenv/witness"
)

// witnessed is a tree whose beats are told to a witness in the network, if there is one.
type witnessed struct{ netip.AddrPort }

func (w *witnessed) set(text string) (err error) {
	w.AddrPort, err = netip.ParseAddrPort(text)
	return err
}

// hostFile holds the name of the host: the file is the host's own wherever the tree is, its host name moves along with it.
const hostFile = "/etc/hostname"

// beat tells the witness of the tree's nth beat, by a socket that is closed again: one that stayed open would be bound to an address of
// the host that it was opened on. That a network loses it is no error.
func (w witnessed) beat(n uint64) error {
	if !w.IsValid() {
		return nil
	}
	host, err := os.ReadFile(hostFile)
	if err != nil {
		return fmt.Errorf("look up the host's name: %w", err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the monotonic clock: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open a socket to the witness: %w", err)
	}
	defer unix.Close(fd)
	line := witness.Beat{Host: strings.TrimSpace(string(host)), Count: n, Clock: time.Duration(now.Nano())}.String()
	_ = unix.Sendto(fd, []byte(line), 0, &unix.SockaddrInet4{Port: int(w.Port()), Addr: w.Addr().As4()})
	return nil
}
