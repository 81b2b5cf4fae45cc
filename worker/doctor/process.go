package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/worker/stat"
)

// process is what /proc says of one process.
type process struct {
	pid, parent, session int // as this host sees them
	tty                  int // device number of the controlling terminal, 0 if none
	inside               int // pid in its own pid namespace
	sessionInside        int // likewise; 0 if the leader is not in that namespace
	tids                 []int
	uid                  int
	state                string
	comm                 string
	rss                  int64
	tracer               int
	caps                 uint64 // permitted
	bounds               uint64 // of what it may gain
	kernel               bool
}

func proc(pid int, name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }

// isGone says whether an error means that a process ended while it was looked at.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// treeOf are a root and all its descendants, the root first. It is empty if the root is gone.
func treeOf(root int) ([]process, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]process{}
	var found []process
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		st, err := stat.Read(pid)
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p := process{pid: st.Pid, parent: st.Parent, session: st.Session, tty: st.TTY, state: st.State, comm: st.Comm, kernel: st.Kernel}
		if pid == root {
			found = append(found, p)
		}
		children[p.parent] = append(children[p.parent], p)
	}
	for i := 0; i < len(found); i++ { // found grows
		found = append(found, children[found[i].pid]...)
	}
	return found, nil
}

// complete reads what its stat does not say. A process that ended meanwhile gives an error that isGone.
func (p *process) complete() error {
	b, err := os.ReadFile(proc(p.pid, "status"))
	if err != nil {
		return err
	}
	p.parseStatus(string(b))
	tasks, err := os.ReadDir(proc(p.pid, "task"))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		b, err := os.ReadFile(proc(p.pid, "task/"+t.Name()+"/status"))
		if err != nil {
			continue // a thread that ended
		}
		p.tids = append(p.tids, last(field(string(b), "NSpid")))
	}
	slices.Sort(p.tids)
	return nil
}

func (p *process) parseStatus(text string) {
	p.inside = last(field(text, "NSpid"))
	p.sessionInside = last(field(text, "NSsid"))
	p.uid = first(field(text, "Uid"))
	p.tracer = first(field(text, "TracerPid"))
	p.caps, p.bounds = capabilitySet(text, "CapPrm"), capabilitySet(text, "CapBnd")
	p.rss = int64(first(field(text, "VmRSS"))) << 10
}

// field are the words after "key:" in a file of such lines.
func field(text, key string) []string {
	for line := range strings.Lines(text) {
		if k, rest, ok := strings.Cut(line, ":"); ok && k == key {
			return strings.Fields(rest)
		}
	}
	return nil
}

func first(words []string) int { return number(words, 0) }
func last(words []string) int  { return number(words, len(words)-1) }

func number(words []string, i int) int {
	if i < 0 || i >= len(words) {
		return 0
	}
	n, _ := strconv.Atoi(words[i])
	return n
}

// namespace is the inode of a process's namespace of that kind, 0 if it cannot be told.
func namespace(pid string, kind string) uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/"+pid+"/ns/"+kind, &st) != nil {
		return 0
	}
	return st.Ino
}
