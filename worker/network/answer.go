package network

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A segment of an existing connection that comes to a fence is dropped, and its sender told so by ICMP: host unreachable, for
// IPv6 no route to destination. A connection must not end by that (RFC 1122, 4.2.3.9; RFC 4443, 3.1 says nothing else), and Linux
// takes it as word that the path is gone rather than full: a retransmission that is answered so does not double the time until
// the next one (RFC 6069). A client tries again every 200 ms or so instead of after 0.2, 0.4, 0.8, 1.6 s.
//
// A SYN gets no answer: a connect would fail by it. Nor does a reset.
const (
	// What goes out of a fence is bounded, in answers; what is over it is dropped unanswered. The kernel itself lets a
	// namespace send as many (icmp_msgs_per_sec).
	answersASecond = 1000
	answersAtOnce  = 200

	// criuMark is the one mark that CRIU's network lock lets through (its SOCCR_MARK). In a namespace that a tree has to itself
	// that lock drops all else that goes out, from the freeze on, at priority 0.
	criuMark = 0xc114
)

// icmp is how one family says that a host cannot be reached, and where it quotes what of the packet concerned, in bytes from the
// start of its message.
type icmp struct {
	family, protocol, kind, code byte
	quotedProtocol, quotedTo     uint32
}

func icmpOf(addr netip.Addr) icmp {
	const header = 8
	if addr.Is4() {
		return icmp{unix.NFPROTO_IPV4, unix.IPPROTO_ICMP, 3, 1, header + 9, header + 16}
	}
	return icmp{unix.NFPROTO_IPV6, unix.IPPROTO_ICMPV6, 1, 0, header + 6, header + 24}
}

// ofCRIU lets CRIU's own packets through: those with which it brings half-closed connections into their state, as if they came from the
// other end. They never leave the host, and none that comes from outside has a mark.
func ofCRIU() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, equal(binaryutil.NativeEndian.PutUint32(criuMark)), &expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// answer is the next rule of a fence's chain: of "in" the one that answers, of "out" the one that lets exactly these answers out.
func answer(hook string, addr netip.Addr) []expr.Any {
	i := icmpOf(addr)
	if hook == "in" {
		return slices.Concat(
			meta(expr.MetaKeyNFPROTO, i.family), network(to(addr), addr.AsSlice()), meta(expr.MetaKeyL4PROTO, unix.IPPROTO_TCP), neitherSYNNorRST(),
			[]expr.Any{
				&expr.Limit{Type: expr.LimitTypePkts, Rate: answersASecond, Unit: expr.LimitTimeSecond, Burst: answersAtOnce},
				&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: i.code},
			})
	}
	return slices.Concat(
		meta(expr.MetaKeyNFPROTO, i.family), network(from(addr), addr.AsSlice()), meta(expr.MetaKeyL4PROTO, i.protocol),
		transport(0, []byte{i.kind, i.code}), transport(i.quotedProtocol, []byte{unix.IPPROTO_TCP}), transport(i.quotedTo, addr.AsSlice()),
		[]expr.Any{
			&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(criuMark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept},
		})
}

func neitherSYNNorRST() []expr.Any {
	const flags, syn, rst = 13, 2, 4
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{syn | rst}, Xor: []byte{0}},
		equal([]byte{0}),
	}
}

// from and to are where an IP header has its addresses.
func from(addr netip.Addr) uint32 {
	if addr.Is4() {
		return 12
	}
	return 8
}

func to(addr netip.Addr) uint32 { return from(addr) + uint32(len(addr.AsSlice())) }
