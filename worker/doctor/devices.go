package doctor

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Device numbers from the kernel's Documentation/admin-guide/devices.txt.
const (
	majorMemory     = 1 // null, zero, full, random, …
	majorTTY        = 4
	majorTTYAux     = 5 // tty, console, ptmx
	majorMisc       = 10
	majorPTYSlave   = 136
	majorPTYLast    = 143
	minorTun        = 200
	minorPTMX       = 2
	minorMemoryMem  = 1
	minorMemoryPort = 4
)

// device notes a device that a process has open or mapped.
func (l *look) device(p *process, path, info string, st unix.Stat_t) {
	major, minor := unix.Major(st.Rdev), unix.Minor(st.Rdev)
	switch {
	case major == majorMemory && minor != minorMemoryMem && minor != minorMemoryPort:
	case major == majorMisc && minor == minorTun:
	case major == majorTTYAux && minor == minorPTMX:
		if n := field(info, "tty-index"); len(n) == 1 {
			l.masters["/dev/pts/"+n[0]] = true
		}
	case major >= majorPTYSlave && major <= majorPTYLast:
		if slave := strings.TrimSuffix(path, deletedMark); l.ptys[slave].comm == "" {
			l.ptys[slave] = p.has(slave)
		}
	case major == majorTTY, major == majorTTYAux:
		l.seen.terminals = append(l.seen.terminals, p.has(path))
	default:
		l.seen.devices = append(l.seen.devices, p.has(path))
	}
}

// lookAtTerminals finds those whose master side is not in the tree: the screen they show on does not move.
func (l *look) lookAtTerminals() {
	for slave, o := range l.ptys {
		if !l.masters[slave] {
			l.seen.terminals = append(l.seen.terminals, o)
		}
	}
	for _, p := range l.procs {
		if p.tty == 0 || len(l.seen.terminals) > 0 {
			continue
		}
		if slave := terminalName(p.tty); !l.masters[slave] {
			l.seen.terminals = append(l.seen.terminals, p.has(slave))
		}
	}
}

// terminalName is the path of a controlling terminal, whose number stat gives in the old encoding.
func terminalName(tty int) string {
	major, minor := tty>>8&0xfff, tty&0xff|tty>>12&0xfff00
	if major >= majorPTYSlave && major <= majorPTYLast {
		return "/dev/pts/" + strconv.Itoa((major-majorPTYSlave)*256+minor)
	}
	return "/dev/tty" + strconv.Itoa(minor)
}
