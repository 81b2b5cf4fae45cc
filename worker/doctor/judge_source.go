package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"drover/engine"
	workerapi "drover/worker/api"
)

const (
	mebibyte      = 1 << 20
	ghostDefault  = mebibyte // CRIU's own limit on the size of a deleted file
	ghostMost     = 1 << 30  // what is still carried in the images, which live in memory
	namesInDetail = 5        // how many of many are named
)

// findings collects what one host says.
type findings struct {
	host string
	list []workerapi.Finding
}

func (f *findings) ok(check, format string, args ...any) {
	f.list = append(f.list, workerapi.Finding{Check: check, Host: f.host, Verdict: workerapi.Go, Detail: fmt.Sprintf(format, args...)})
}

func (f *findings) flag(check, flag, format string, args ...any) {
	f.list = append(f.list, workerapi.Finding{Check: check, Host: f.host, Verdict: workerapi.GoWithFlag, Flag: flag, Detail: fmt.Sprintf(format, args...)})
}

func (f *findings) no(check, mend, format string, args ...any) {
	f.list = append(f.list, workerapi.Finding{Check: check, Host: f.host, Verdict: workerapi.NoGo, Mend: mend, Detail: fmt.Sprintf(format, args...)})
}

// judgeSource says what CRIU must be told to dump the tree, and what it could not dump at all.
func judgeSource(inv workerapi.Inventory, s seen) (engine.Options, []workerapi.Finding) {
	f := &findings{host: inv.Host}
	var o engine.Options
	judgeWorker(f, s.caps)
	judgeProcesses(f, inv, s)
	judgeDescriptors(f, s)
	judgeTerminals(f, &o, inv, s)
	judgeConnections(f, &o, inv, s)
	judgeLostFiles(f, &o, s)
	if len(s.locks) > 0 {
		o.FileLocks = true
		f.flag("locks", "--file-locks", "file locks are held by %s", who(s.locks))
	}
	if len(f.list) == 0 {
		f.ok("tree", "%d processes: nothing in the way of a dump", len(inv.Processes))
	}
	return o, f.list
}

func judgeProcesses(f *findings, inv workerapi.Inventory, s seen) {
	if s.kernelThread {
		f.no("processes", "choose a user process", "it is a kernel thread")
	}
	if inv.Truncated {
		f.no("processes", "move its parts as workloads of their own", "the tree has more processes, files or ports than can be looked at (%d, %d, %d)",
			maxProcesses, maxFiles, maxListeners)
	}
	if len(s.strays) > 0 {
		f.no("processes", "start it in its own pid namespace with `drover run`, or adopt a root that is the parent of all",
			"not below the tree's root, and would stay behind: %s", who(s.strays))
	}
	if len(s.traced) > 0 {
		f.no("processes", "detach the debugger", "%s traces %s", s.traced[0].what, who(s.traced))
	}
	for _, n := range s.nested {
		f.no("namespaces", "run it without "+n.what+" namespaces of its own", "process %s lives in a %s namespace below the tree's own", n, n.what)
		break
	}
	if len(s.shm) > 0 && !inv.OwnIPCNS {
		f.no("shm", "start it with `drover run`, which gives it its own IPC namespace, or under `unshare --ipc`",
			"process %s has System V shared memory and shares the host's IPC namespace", s.shm[0])
	}
}

// anonymousMends say how to do without what CRIU cannot dump.
var anonymousMends = map[string]string{
	"io_uring":    "keep it from using io_uring: sysctl kernel.io_uring_disabled=2, or a seccomp filter (node makes a ring whatever it is told)",
	"userfaultfd": "keep it from using userfaultfd",
	"perf_event":  "stop profiling it",
	"kvm-vm":      "move the virtual machine by its own means",
	"secretmem":   "keep it from using memfd_secret",
}

// familyMends say how to do without a kind of socket.
var familyMends = map[string]string{
	"MPTCP": "start it without multipath TCP: GODEBUG=multipathtcp=0 for a Go program",
	"SMC":   "start it without smc_run",
}

func judgeDescriptors(f *findings, s seen) {
	each := func(check string, list []owner, mends map[string]string, otherwise, format string) {
		for _, group := range byWhat(list) {
			what := group[0].what
			f.no(check, cmp.Or(mends[what], otherwise), format, what, who(group))
		}
	}
	each("descriptors", s.anon, anonymousMends, "close it before the move", "%s cannot be dumped: %s")
	each("sockets", s.families, familyMends, "close such sockets before the move", "sockets of the kind %s cannot be dumped: %s")
	each("devices", s.devices, nil, "close the device before the move; a GPU needs a CRIU plugin that drover does not use", "device %s cannot be dumped: %s")
	if len(s.pipes) > 0 {
		f.no("pipes", "start it with its output in files, or adopt the tree's common parent", "the other end of a pipe of %s stays behind, with %s", who(s.pipes[:1]), s.pipes[0].what)
	}
	if len(s.unixPeers) > 0 {
		f.no("sockets", "close the connection (a log or a bus, mostly) before the move, or adopt the tree's common parent",
			"the other end of a unix socket of %s stays behind, with %s", who(s.unixPeers[:1]), s.unixPeers[0].what)
	}
}

func judgeTerminals(f *findings, o *engine.Options, inv workerapi.Inventory, s seen) {
	switch {
	case len(s.terminals) > 0:
		f.no("terminal", "start it without one: setsid PROGRAM </dev/null >LOG 2>&1", "process %s uses terminal %s, which shows on this host", s.terminals[0], s.terminals[0].what)
	case len(s.leadOutside) > 0:
		f.no("session", "start it with `drover run` or setsid", "the session of %s was begun outside its pid namespace, and cannot be told there", who(s.leadOutside))
	case s.foreignLead && !inv.OwnPidNS:
		o.ShellJob = true
		f.flag("terminal", "--shell-job", "the leader of its session is not in the tree")
	}
}

// judgeConnections looks at established TCP: it survives if both ends' addresses are what they were after the move.
func judgeConnections(f *findings, o *engine.Options, inv workerapi.Inventory, s seen) {
	if len(s.connections) == 0 {
		return
	}
	o.TCPEstablished = true
	f.flag("tcp", "--tcp-established", "%d established connections move with it", len(s.connections))
	if inv.OwnNetNS {
		return
	}
	address, _ := prefixOf(inv.Spec)
	inTree := func(c connection) bool {
		return slices.ContainsFunc(s.connections, func(d connection) bool { return d.local == c.remote && d.remote == c.local })
	}
	var bound []owner
	for _, c := range s.connections {
		if c.local.Addr() != address.Addr() && !(c.local.Addr().IsLoopback() && inTree(c)) {
			c.what = fmt.Sprintf("%s to %s", c.local, c.remote)
			bound = append(bound, c.owner)
		}
	}
	if len(bound) > 0 {
		f.no("tcp", "give the workload an address of its own with --address, and let its peers use that; or close the connections",
			"%d connections end when it leaves this host, the first of %s: %s", len(bound), who(bound[:1]), bound[0].what)
	}
}

// judgeLostFiles looks at files that are in use and have lost their names. CRIU puts small ones into the images.
func judgeLostFiles(f *findings, o *engine.Options, s seen) {
	var largest file
	for _, d := range s.deleted {
		if d.size > largest.size {
			largest = d
		}
	}
	switch {
	case largest.size > ghostMost:
		f.no("files", "restart it, or keep it from deleting files it has open", "process %s uses the deleted file %s of %d MiB, too large for the images", largest.owner, largest.path, largest.size/mebibyte)
	case largest.size > ghostDefault:
		o.GhostLimit = uint32((largest.size + mebibyte) / mebibyte * mebibyte)
		f.flag("files", fmt.Sprintf("--ghost-limit %dM", o.GhostLimit/mebibyte), "deleted files that are in use move in the images: %s", largest.path)
	case len(s.deleted) > 0:
		f.ok("files", "%d deleted files that are in use move in the images", len(s.deleted))
	}
	if len(s.unlinked) == 0 {
		return
	}
	o.LinkRemap = true
	f.flag("files", "--link-remap", "%s was opened under a name that is gone and has another", s.unlinked[0].path)
	for _, u := range s.unlinked {
		if !u.carried {
			f.no("files", "put its directory on a volume, which moves with the tree", "%s is in use under a name that is gone, and is on no volume: the target cannot get it", u.path)
			break
		}
	}
}

// who names the first few of many processes: "process 12 (redis-server)", "processes 12 (sh), 13 (tee)".
func who(list []owner) string {
	var names []string
	for _, o := range list {
		if name := o.String(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 1 {
		return "process " + names[0]
	}
	return "processes " + some(names)
}

func some(names []string) string {
	if len(names) > namesInDetail {
		return strings.Join(names[:namesInDetail], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

func (o owner) String() string { return fmt.Sprintf("%d (%s)", o.pid, o.comm) }

// byWhat groups owners by what they have, in the order of what.
func byWhat(list []owner) (groups [][]owner) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b owner) int { return strings.Compare(a.what, b.what) })
	for i, o := range list {
		if i == 0 || o.what != list[i-1].what {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], o)
	}
	return groups
}
