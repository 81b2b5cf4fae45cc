// Package network gives a workload its address on this host, and hides, shows, announces and takes away that address.
//
// A workload of kind run with an address has a network namespace of its own: lo and eth0, a macvlan in bridge mode on one of
// the host's links, with a MAC address of its own on each host. One of kind adopt lives in the host's network, and the host
// holds its address. Either way, two hosts have the address for a moment while the tree moves: all but one of them stand
// behind a fence, two nftables tables that drop every packet and every ARP or neighbour discovery message about the address,
// and tell the senders of TCP segments so by ICMP. A fence outlives the process that made it.
//
// The host's network is that of the calling thread. Namespaces are named by the path of a file they are bound to; "" is the
// host's own. The package never moves a process and never decides when to fence: worker/workloads does.
//
// A tree in a namespace of its own cannot talk to its own host's addresses and the host not to it: macvlan never sends
// from a child to its parent link. Other hosts, and other workloads on this one, it can talk to.
//
// Start with Create, then read fence.go.
package network
