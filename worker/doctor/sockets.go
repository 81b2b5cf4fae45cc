package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
	workerapi "drover/worker/api"
	"drover/worker/network"
)

// heldSocket says which process of the tree has a socket, and where.
type heldSocket struct {
	owner
	host int // the process, as this host sees it
	fd   int
}

// Families and protocols that CRIU dumps. Everything else it refuses in the middle of the dump.
var (
	dumpableFamilies = []int{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET}
	familyNames      = map[int]string{
		unix.AF_VSOCK: "AF_VSOCK", unix.AF_ALG: "AF_ALG", unix.AF_BLUETOOTH: "Bluetooth", unix.AF_CAN: "CAN", unix.AF_XDP: "AF_XDP",
		unix.AF_TIPC: "TIPC", unix.AF_KEY: "AF_KEY", unix.AF_SMC: "SMC", unix.AF_RDS: "RDS", unix.AF_QIPCRTR: "QIPCRTR", unix.AF_NFC: "NFC",
	}
	protocolNames = map[int]string{unix.IPPROTO_MPTCP: "MPTCP", unix.IPPROTO_SCTP: "SCTP", unix.IPPROTO_DCCP: "DCCP", 256: "SMC"}
)

// lookAtSockets looks at each socket of the tree once, through a duplicate of its descriptor: only the socket itself knows its
// protocol, and one in another network namespace is no different.
func (l *look) lookAtSockets(ctx context.Context) error {
	names := make([]string, 0, len(l.sockets))
	for name := range l.sockets {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.socket(l.sockets[name]); err != nil {
			return err
		}
	}
	return l.findPeers()
}

func (l *look) socket(s heldSocket) error {
	fd, err := duplicate(s.host, s.fd)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF) {
		return nil // closed meanwhile
	}
	if err != nil {
		return errs.New(errs.Failed, "look at socket %d of process %d: %w", s.fd, s.host, err).
			WithNext("the worker must run as root, on a kernel from 5.6 on")
	}
	defer unix.Close(fd)
	option := func(o int) int { v, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, o); return v }
	family, kind, protocol := option(unix.SO_DOMAIN), option(unix.SO_TYPE), option(unix.SO_PROTOCOL)
	s.what = ""
	switch {
	case !slices.Contains(dumpableFamilies, family):
		s.what = familyNames[family]
		if s.what == "" {
			s.what = fmt.Sprintf("address family %d", family)
		}
	case family == unix.AF_UNIX:
		l.boundUnix(fd)
	case family == unix.AF_INET || family == unix.AF_INET6:
		s.what = protocolNames[protocol]
		l.internet(s.owner, fd, family, kind, protocol, option(unix.SO_ACCEPTCONN) != 0)
	}
	if s.what != "" {
		l.seen.families = append(l.seen.families, s.owner)
	}
	return nil
}

// duplicate takes a duplicate of another process's descriptor. It is closed on exec.
func duplicate(pid, fd int) (int, error) {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(p)
	return unix.PidfdGetfd(p, fd, 0)
}

// internet notes a connection or a port.
func (l *look) internet(o owner, fd, family, kind, protocol int, listens bool) {
	local := addressOf(unix.Getsockname(fd))
	if protocol == unix.IPPROTO_TCP && !listens {
		if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && isConnection(int(info.State)) {
			l.seen.connections = append(l.seen.connections, connection{o, local, addressOf(unix.Getpeername(fd))})
		}
		return
	}
	name := map[int]string{unix.SOCK_STREAM: "tcp", unix.SOCK_DGRAM: "udp"}[kind]
	if protocol == unix.IPPROTO_MPTCP {
		name = "mptcp"
	} else if family == unix.AF_INET6 && name != "" {
		name += "6"
	}
	if l.inv.OwnNetNS || name == "" || local.Port() == 0 || kind == unix.SOCK_STREAM && !listens {
		return
	}
	if len(l.inv.Listeners) >= maxListeners {
		l.inv.Truncated = true
		return
	}
	l.inv.Listeners = append(l.inv.Listeners, workerapi.Listener{Proto: name, Address: local.Addr().String(), Port: int(local.Port())})
}

// isConnection says whether a TCP state (net/tcp_states.h) is one that CRIU dumps only as an established connection.
func isConnection(state int) bool {
	const synSent, timeWait, closed, listen, newSynReceived = 2, 6, 7, 10, 12
	return state != 0 && !slices.Contains([]int{synSent, timeWait, closed, listen, newSynReceived}, state)
}

func addressOf(sa unix.Sockaddr, err error) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// boundUnix notes the directory of a unix socket that has a path: it is made anew on the target.
func (l *look) boundUnix(fd int) {
	sa, err := unix.Getsockname(fd)
	a, ok := sa.(*unix.SockaddrUnix)
	if err != nil || !ok || !strings.HasPrefix(a.Name, "/") {
		return
	}
	dir, link := path.Dir(a.Name), proc(l.procs[0].pid, "root")+path.Dir(a.Name)
	var st unix.Stat_t
	if unix.Stat(link, &st) != nil || l.comesAlong(link, dir) {
		return
	}
	if _, known := l.files[dir]; !known && len(l.files) < maxFiles {
		l.files[dir] = workerapi.File{Path: dir, Mode: st.Mode}
	}
}

// findPeers finds the other ends of the tree's connected unix sockets.
func (l *look) findPeers() error {
	ns := ""
	if l.inv.OwnNetNS {
		ns = proc(l.procs[0].pid, "ns/net")
	}
	err := network.Within(ns, func() error {
		all, err := netlink.UnixSocketDiagInfo()
		for _, s := range all {
			if s.Peer == nil || s.DiagMsg == nil {
				continue
			}
			mine, ok := l.sockets[socketName(s.DiagMsg.INode)]
			other := socketName(*s.Peer)
			if _, inTree := l.sockets[other]; ok && !inTree && *s.Peer != 0 {
				l.peers[other] = mine.owner
			}
		}
		return err
	})
	switch {
	case err == nil, errors.Is(err, netlink.ErrDumpInterrupted), errs.KindOf(err) == errs.NotFound:
		return nil // sockets came or went while they were listed: those of the tree that matter stay
	}
	return errs.New(errs.Failed, "list unix sockets: %w", err)
}

func socketName(inode uint32) string { return "socket:[" + strconv.FormatUint(uint64(inode), 10) + "]" }
