package doctor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/worker/stat"
)

// pipeEnds says which ends of a pipe the tree has.
type pipeEnds struct {
	owner
	reads, writes bool
}

func (l *look) pipe(p *process, name, info string) {
	flags, _ := strconv.ParseUint(strings.Join(field(info, "flags"), ""), 8, 64)
	ends, known := l.pipes[name]
	if !known {
		ends.owner = p.has(name)
	}
	mode := flags & unix.O_ACCMODE
	ends.reads = ends.reads || mode != unix.O_WRONLY
	ends.writes = ends.writes || mode != unix.O_RDONLY
	l.pipes[name] = ends
}

// lookAtOtherEnds finds pipes and connected unix sockets of which the tree has one end and somebody else the other. CRIU
// restores such a pipe with that end closed, so that the tree gets SIGPIPE or an end of file that it would not have got, and
// refuses such a socket. An end that nobody has is no matter.
func (l *look) lookAtOtherEnds() {
	wanted := map[string]owner{}
	for name, ends := range l.pipes {
		if ends.reads != ends.writes {
			wanted[name] = ends.owner
		}
	}
	for name, o := range l.peers {
		wanted[name] = o
	}
	if len(wanted) == 0 {
		return
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		if l.in[pid] {
			continue
		}
		name, err := os.Readlink(link)
		o, ours := wanted[name]
		if err != nil || !ours {
			continue
		}
		delete(wanted, name)
		o.what = "process " + strconv.Itoa(pid) + " (" + commOf(pid) + ")"
		if strings.HasPrefix(name, "pipe:") {
			l.seen.pipes = append(l.seen.pipes, o)
		} else {
			l.seen.unixPeers = append(l.seen.unixPeers, o)
		}
	}
}

func commOf(pid int) string {
	b, _ := os.ReadFile(proc(pid, "comm"))
	return strings.TrimSpace(string(b))
}

// isProcess says whether a pid is that of a process which is not a zombie.
func isProcess(pid int) bool {
	p, err := stat.Read(pid)
	return err == nil && !p.Zombie()
}
