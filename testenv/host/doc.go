// Package host runs real hosts on one machine, for tests and by hand.
//
// A Bed is a set of hosts on one Ethernet segment. A Host has its own mount, pid, uts, ipc, network and cgroup namespaces, its
// own writable layer over the test bed's root file system, its own cgroup v2 subtree and a pid 1 that reaps. Nothing in it knows
// that it is a test: what runs there runs as on any Debian machine. A Link is a host's cable: it can be slowed, cut and healed.
//
// Everything belongs to the process that made the bed. When that process dies, however it dies, its hosts die with it; what is
// left then (empty cgroups, files) is removed by the next NewBed or by Sweep.
//
// A host's pid 1 and the doorway into it are this very binary, started again under another name: a program or test that imports
// the package needs to do nothing for that, see reexec.go.
//
// It never touches the machine's own network, mounts or processes. Start reading with Bed, then Host, then boot.go.
package host
