package doctor

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	workerapi "drover/worker/api"
)

// capabilityNames are the kernel's, by number (include/uapi/linux/capability.h).
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
	NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE
	SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
	CHECKPOINT_RESTORE`)

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

// judgeCapabilities: a process cannot be given back what the worker here has not.
func judgeCapabilities(f *findings, inv workerapi.Inventory, p place) {
	for _, proc := range inv.Processes {
		if lacks := capabilities(proc.Caps &^ p.caps); len(lacks) > 0 {
			f.no("capabilities", fmt.Sprintf("add CapabilityBoundingSet=%s to drover-worker.service on %s and restart it", strings.Join(lacks, " "), p.facts.Name),
				"process %d (%s) holds %s, which the worker here has not", proc.Pid, proc.Comm, strings.Join(lacks, ", "))
			return
		}
	}
	f.ok("capabilities", "the worker has every capability that the tree holds")
}
