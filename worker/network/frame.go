package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

const (
	arpRequest = 1
	arpReply   = 2
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// arp is an Ethernet frame with an ARP message for IPv4 (RFC 826), padded to Ethernet's least length.
func arp(op byte, mac net.HardwareAddr, from netip.Addr, about netip.Addr) []byte {
	f := slices.Concat(broadcast, mac, []byte{0x08, 0x06}, []byte{0, 1, 0x08, 0, 6, 4, 0, op})
	f = slices.Concat(f, mac, from.AsSlice(), broadcast, about.AsSlice())
	return append(f, make([]byte, 60-len(f))...)
}

// gratuitousARP says "addr is at mac" to everyone (RFC 5227, 3).
func gratuitousARP(op byte, mac net.HardwareAddr, addr netip.Addr) []byte {
	return arp(op, mac, addr, addr)
}

// neighbourAdvertisement is an Ethernet frame with an unsolicited neighbour advertisement to all nodes (RFC 4861, 7.2.6), with
// the override flag and the target's link-layer address.
func neighbourAdvertisement(mac net.HardwareAddr, addr netip.Addr) []byte {
	const override = 0x20
	allNodes := netip.MustParseAddr("ff02::1")
	icmp := slices.Concat([]byte{136, 0, 0, 0, override, 0, 0, 0}, addr.AsSlice(), []byte{2, 1}, mac)
	binary.BigEndian.PutUint16(icmp[2:], checksum(addr, allNodes, icmp))
	ip := slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(len(icmp)), 58, 255}, addr.AsSlice(), allNodes.AsSlice())
	return slices.Concat([]byte{0x33, 0x33, 0, 0, 0, 1}, mac, []byte{0x86, 0xdd}, ip, icmp)
}

// checksum is ICMPv6's, over the pseudo-header of RFC 8200, 8.1 and a message of even length.
func checksum(from, to netip.Addr, icmp []byte) uint16 {
	var sum uint32
	all := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, 0, 0, byte(len(icmp)), 0, 0, 0, 58}, icmp)
	for i := 0; i+1 < len(all); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(all[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// neighbourSolicitation is an Ethernet frame that asks, from no address, who has addr: duplicate address detection.
func neighbourSolicitation(mac net.HardwareAddr, addr netip.Addr) []byte {
	a := addr.As16()
	group := netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
	icmp := slices.Concat([]byte{135, 0, 0, 0, 0, 0, 0, 0}, a[:])
	binary.BigEndian.PutUint16(icmp[2:], checksum(netip.IPv6Unspecified(), group, icmp))
	ip := slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(len(icmp)), 58, 255}, netip.IPv6Unspecified().AsSlice(), group.AsSlice())
	return slices.Concat([]byte{0x33, 0x33, 0xff, a[13], a[14], a[15]}, mac, []byte{0x86, 0xdd}, ip, icmp)
}
