package doctor

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	workerapi "drover/worker/api"
)

// capabilityNames are the kernel's, by number (include/uapi/linux/capability.h).
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
	NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE
	SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
	CHECKPOINT_RESTORE`)

// need is a capability that a worker cannot do without, and what for. docs/security.md says where, and the test that shows it.
type need struct {
	name string
	why  string
}

// needs are the least that a worker and its CRIU move ordinary trees with; configs/systemd/drover-worker-least.conf is the same set.
var needs = []need{
	{"CHOWN", "files that it carries keep their owners"},
	{"DAC_OVERRIDE", "it opens the files of trees of other users"},
	{"DAC_READ_SEARCH", "CRIU finds the files that inotify watches"},
	{"FOWNER", "files of other users keep their modes and times"},
	{"FSETID", "files that it carries keep their set-group-id bits"},
	{"KILL", "it signals trees of other users, and CRIU ends their source"},
	{"SETGID", "a tree's processes get their groups"},
	{"SETUID", "a tree's processes get their users"},
	{"SETPCAP", "a tree's processes get no more capabilities than they had"},
	{"NET_BIND_SERVICE", "CRIU listens again at ports below 1024"},
	{"NET_ADMIN", "addresses, fences and the repair of TCP connections"},
	{"NET_RAW", "it announces addresses on the network"},
	{"IPC_LOCK", "CRIU locks memory that was locked; keys of spilled stores are not swapped"},
	{"IPC_OWNER", "CRIU reads the System V queues and semaphores of other users"},
	{"SYS_CHROOT", "CRIU enters a tree's root"},
	{"SYS_PTRACE", "CRIU looks into a tree's processes"},
	{"SYS_ADMIN", "namespaces, mounts, pids and clones of what CRIU restores"},
	{"SYS_NICE", "a tree's processes get their priorities"},
	{"SYS_RESOURCE", "CRIU reads and sets the limits of processes of other users"},
	{"SYS_TIME", "a tree's clocks go on where they were, in a time namespace"},
	{"MKNOD", "a tree that is started gets its /dev"},
}

// spared are those without which root's own trees move all the same, and that a container's host may not have to give: whoever lacks them hears
// of it when the worker starts and, if it comes to that, from CRIU (signature rlimit).
var spared = setOf("SYS_RESOURCE")

// setOf is the set of capabilities with those names.
func setOf(names ...string) (set uint64) {
	for bit, name := range capabilityNames {
		if slices.Contains(names, name) {
			set |= 1 << bit
		}
	}
	return set
}

// Lacking says which capabilities that a worker needs this process could not hand on to CRIU, each with what for: "CAP_SYS_TIME (a tree's …)".
func Lacking() []string { return lacking(ownCapabilities()) }

func lacking(have uint64) (list []string) {
	for _, n := range needs {
		if setOf(n.name)&^have != 0 {
			list = append(list, fmt.Sprintf("CAP_%s (%s)", n.name, n.why))
		}
	}
	return list
}

// judgeWorker: a worker that lacks what CRIU will need finds out when the tree stands still, or never, because CRIU's restorer hangs on some.
func judgeWorker(f *findings, have uint64) {
	if lacks := lacking(have | spared); len(lacks) > 0 {
		f.no("worker", mendUnit(f.host, setOf(neededNames()...)&^have), "the worker here lacks %s", strings.Join(lacks, ", "))
	}
}

func neededNames() (names []string) {
	for _, n := range needs {
		names = append(names, n.name)
	}
	return names
}

// mendUnit is how a worker gets more: in a drop-in, each CapabilityBoundingSet= adds to those before it.
func mendUnit(host string, lacks uint64) string {
	return fmt.Sprintf("add CapabilityBoundingSet=%s to drover-worker.service on %s and restart it", strings.Join(capabilities(lacks), " "), host)
}

// capabilities are the names of a set.
func capabilities(set uint64) (names []string) {
	for bit := range 64 {
		if set>>bit&1 == 0 {
			continue
		}
		name := strconv.Itoa(bit)
		if bit < len(capabilityNames) {
			name = capabilityNames[bit]
		}
		names = append(names, "CAP_"+name)
	}
	return names
}

// capabilitySet is a set as a status file has it, in hexadecimal digits; empty if it is not there.
func capabilitySet(status, key string) uint64 {
	words := field(status, key)
	if len(words) == 0 {
		return 0
	}
	set, _ := strconv.ParseUint(words[0], 16, 64)
	return set
}

// ownCapabilities are those that this process may hand on.
func ownCapabilities() uint64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ^uint64(0) // if they cannot be told, the restore will
	}
	return capabilitySet(string(b), "CapBnd")
}

// judgeCapabilities: a process cannot be given back what the worker here has not. CRIU fails at what it holds, and keeps silent about what it
// could still gain by executing a set-uid program.
func judgeCapabilities(f *findings, inv workerapi.Inventory, p place) {
	for _, proc := range inv.Processes {
		holds, gains := proc.Caps&^p.caps, proc.Bounds&^p.caps
		verb, lacks := "holds", holds
		if holds == 0 {
			verb, lacks = "may gain", gains
		}
		if lacks != 0 {
			f.no("capabilities", mendUnit(p.facts.Name, holds|gains)+", or choose another target",
				"process %d (%s) %s %s, which the worker here has not", proc.Pid, proc.Comm, verb, strings.Join(capabilities(lacks), ", "))
			return
		}
	}
	f.ok("capabilities", "the worker has every capability that the tree holds or may gain")
}
