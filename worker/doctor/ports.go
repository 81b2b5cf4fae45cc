package doctor

import (
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	workerapi "drover/worker/api"
)

// listeningPorts are the ports that are taken in a network, by its /proc/…/net.
func listeningPorts(dir string) (all []workerapi.Listener) {
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		if b, err := os.ReadFile(filepath.Join(dir, proto)); err == nil {
			all = append(all, parsePorts(proto, string(b))...)
		}
	}
	return all
}

// parsePorts reads /proc/net/tcp and its like: sockets that listen, and for UDP all that are bound.
func parsePorts(proto, text string) (all []workerapi.Listener) {
	const tcpListen, udpUnconnected = "0A", "07"
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // sl local remote state …
		if len(f) < 4 || f[3] != tcpListen && (f[3] != udpUnconnected || !strings.HasPrefix(proto, "udp")) {
			continue
		}
		host, port, ok := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		addr, isAddr := parseAddress(host)
		if !ok || err != nil || !isAddr {
			continue
		}
		all = append(all, workerapi.Listener{Proto: proto, Address: addr.String(), Port: int(n)})
	}
	return all
}

// parseAddress reads an address as the kernel prints it: 32-bit words in this host's byte order, which is little-endian
// wherever CRIU runs but on s390.
func parseAddress(s string) (netip.Addr, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(b)
	return addr.Unmap(), ok
}

// clash says whether two listeners cannot both be: same transport and port, and one address, or any address on either side.
// An IPv6 listener on any address takes the IPv4 port too unless told not to, which cannot be seen.
func clash(a, b workerapi.Listener) bool {
	transport := func(p string) string {
		if strings.HasPrefix(p, "udp") {
			return "udp"
		}
		return "tcp"
	}
	if transport(a.Proto) != transport(b.Proto) || a.Port != b.Port {
		return false
	}
	x, err1 := netip.ParseAddr(a.Address)
	y, err2 := netip.ParseAddr(b.Address)
	if err1 != nil || err2 != nil {
		return false
	}
	if x == y {
		return true
	}
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	covers := func(x, y netip.Addr) bool { return x == any6 || x == any4 && y.Is4() }
	return covers(x, y) || covers(y, x)
}

// addressNeeded is the address that a host must have for the listener; ok is false if any host will do.
func addressNeeded(l workerapi.Listener) (addr netip.Addr, ok bool) {
	addr, err := netip.ParseAddr(l.Address)
	return addr, err == nil && !addr.IsUnspecified() && !addr.IsLoopback()
}
