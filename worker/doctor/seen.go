package doctor

import "net/netip"

// seen is what a look at a tree on its source found, apart from what the inventory lists: plain data for judgeSource.
type seen struct {
	kernelThread bool
	strays       []owner // in the tree's cgroup, but not of the tree
	traced       []owner // what: the tracer
	nested       []owner // in a pid or user namespace below the root's; what: which
	shm          []owner // SysV shared memory
	anon         []owner // descriptors and mappings that CRIU cannot dump; what: "io_uring", …
	devices      []owner // what: the path
	families     []owner // sockets of families or protocols that CRIU cannot dump; what: "MPTCP", …
	terminals    []owner // whose other end is not in the tree; what: the path
	foreignLead  bool    // the session's leader is outside the tree
	leadOutside  []owner // whose session's leader is outside their pid namespace, where the session has no number
	pipes        []owner // whose other end is held outside the tree
	unixPeers    []owner // connected unix sockets whose other end is outside the tree
	locks        []owner // file locks held
	deleted      []file  // open or mapped, with no name left
	unlinked     []file  // open under a name that is gone, while another name is left
	connections  []connection
	caps         uint64 // that the worker here may hand on
}

// owner is a process that has something.
type owner struct {
	pid  int // inside the tree
	comm string
	what string
}

type file struct {
	owner
	path string
	size int64
	// carried: on a volume, where drover makes sure that the target gets the name.
	carried bool
}

// connection is an established TCP connection of the tree.
type connection struct {
	owner
	local, remote netip.AddrPort
}
