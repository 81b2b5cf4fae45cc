package fake

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"drover/engine"
	"drover/engine/image"
)

// Spec describes a tree to start. Zero values are replaced by a parent, two children, three threads each, 64 pages each.
type Spec struct {
	Cgroup    string
	Processes int
	Threads   int
	Pages     int
}

// tree is one tree of the model. Engine.mu guards it.
type tree struct {
	root   int // the root's pid on the host
	cgroup string
	procs  []*proc
	frozen bool // by a dump or by the cgroup
	busy   bool // a dump or restore has it
	dirty  map[place]bool
}

// place is a page of a process.
type place struct {
	pid  int
	addr uint64
}

// proc is a process. All its memory follows from Work.
type proc struct {
	Pid     int    `json:"pid"` // in the tree's own pid namespace, 1 for the root
	Parent  int    `json:"parent"`
	Threads int    `json:"threads"`
	Pages   int    `json:"pages"`
	Stopped bool   `json:"stopped"` // by a signal
	Work    uint64 `json:"work"`
}

// heap is the address of a process's first page.
const heap = 0x7f00_0000_0000

// Start makes a running tree.
func (e *Engine) Start(s Spec) engine.Tree {
	for v, def := range map[*int]int{&s.Processes: 3, &s.Threads: 3, &s.Pages: 64} {
		if *v == 0 {
			*v = def
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	tr := &tree{root: e.next, cgroup: s.Cgroup, dirty: map[place]bool{}}
	for i := range s.Processes {
		p := &proc{Pid: i + 1, Threads: s.Threads, Pages: s.Pages}
		if i > 0 {
			p.Parent = 1
		}
		tr.procs = append(tr.procs, p)
		for n := range s.Pages {
			tr.dirty[place{p.Pid, p.address(n)}] = true
		}
	}
	e.adopt(tr)
	return engine.Tree{Pid: tr.root, Cgroup: tr.cgroup}
}

// adopt gives a tree its pids. The caller holds mu.
func (e *Engine) adopt(tr *tree) {
	tr.root = e.next
	e.next += len(tr.procs)
	e.trees[tr.root] = tr
}

// copy is the tree as it is at this instant, to be read without the lock.
func (tr *tree) copy() *tree {
	c := *tr
	c.procs, c.dirty = nil, maps.Clone(tr.dirty)
	for _, p := range tr.procs {
		q := *p
		c.procs = append(c.procs, &q)
	}
	return &c
}

// Tick lets every process of this host that runs do n pieces of work.
func (e *Engine) Tick(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, tr := range e.trees {
		if tr.frozen {
			continue
		}
		for _, p := range tr.procs {
			for range n {
				if !p.Stopped {
					p.Work++
					tr.dirty[place{p.Pid, p.address(int(p.Work) % p.Pages)}] = true
				}
			}
		}
	}
}

// Freeze stops a tree as cgroup.freeze does.
func (e *Engine) Freeze(t engine.Tree) { e.setFrozen(t, true) }

// Thaw lets a frozen tree run again.
func (e *Engine) Thaw(t engine.Tree) { e.setFrozen(t, false) }

func (e *Engine) setFrozen(t engine.Tree, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if tr := e.find(t); tr != nil {
		tr.frozen = on
	}
}

// Stop sends SIGSTOP to a process of a tree, by its own pid.
func (e *Engine) Stop(t engine.Tree, pid int) { e.setStopped(t, pid, true) }

// Resume sends SIGCONT to a process of a tree, by its own pid.
func (e *Engine) Resume(t engine.Tree, pid int) { e.setStopped(t, pid, false) }

func (e *Engine) setStopped(t engine.Tree, pid int, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if tr := e.find(t); tr != nil {
		for _, p := range tr.procs {
			if p.Pid == pid {
				p.Stopped = on
			}
		}
	}
}

// Process is what a look at the model shows of a process.
type Process struct {
	Pid     int // in its own namespace
	Threads int
	Work    uint64
	Stopped bool
}

// View is what a look at a tree shows.
type View struct {
	Processes []Process
	Frozen    bool // no process runs, whatever its state
}

// Work is the work done by all processes.
func (v View) Work() (sum uint64) {
	for _, p := range v.Processes {
		sum += p.Work
	}
	return sum
}

// Look shows a tree; ok is false when it is gone.
func (e *Engine) Look(t engine.Tree) (v View, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	tr := e.find(t)
	if tr == nil {
		return v, false
	}
	v.Frozen = tr.frozen
	for _, p := range tr.procs {
		v.Processes = append(v.Processes, Process{Pid: p.Pid, Threads: p.Threads, Work: p.Work, Stopped: p.Stopped})
	}
	return v, true
}

// Trees lists the trees of this host.
func (e *Engine) Trees() []engine.Tree {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []engine.Tree
	for _, tr := range e.trees {
		all = append(all, engine.Tree{Pid: tr.root, Cgroup: tr.cgroup})
	}
	slices.SortFunc(all, func(a, b engine.Tree) int { return a.Pid - b.Pid })
	return all
}

func (p *proc) address(n int) uint64 { return heap + uint64(n)*image.PageSize }

// version is the piece of work that last wrote page n, 0 for none.
func (p *proc) version(n int) uint64 {
	back := (p.Work%uint64(p.Pages) + uint64(p.Pages) - uint64(n)) % uint64(p.Pages)
	if back > p.Work {
		return 0
	}
	if v := p.Work - back; v > 0 {
		return v
	}
	return 0
}

// page fills b with the content of page n.
func (p *proc) page(n int, b []byte) {
	v := p.version(n)
	for i := 0; i < len(b); i += 32 {
		binary.LittleEndian.PutUint64(b[i:], v)
		binary.LittleEndian.PutUint64(b[i+8:], p.address(n))
		binary.LittleEndian.PutUint64(b[i+16:], uint64(p.Pid))
		binary.LittleEndian.PutUint64(b[i+24:], v*0x9e3779b97f4a7c15+uint64(i))
	}
}

// verify says whether b is what page n must hold now.
func (p *proc) verify(n int, b []byte) error {
	var want [image.PageSize]byte
	p.page(n, want[:])
	if string(b) != string(want[:]) {
		return fmt.Errorf("process %d, page %#x: version %d where %d belongs: %w", p.Pid, p.address(n), binary.LittleEndian.Uint64(b), p.version(n), engine.ErrBadImage)
	}
	return nil
}
