package sessiontest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"drover/engine/image"
)

// State is what a copy of a tree can do.
type State string

const (
	Running State = "running"
	Frozen  State = "frozen" // held: no thread runs
	Stopped State = "stopped"
	Dead    State = "dead"
)

// World is some hosts and all copies of all trees there ever were on them.
type World struct {
	mu     sync.Mutex
	copies []*Copy
	wrong  []string
	faults map[string]error
	hooks  map[string]func()
	pids   int
	steps  []string
}

// Copy is a tree as it stands on one host.
type Copy struct {
	Workload string
	Host     string
	Pid      int

	world  *World
	state  State
	ran    bool // an instruction of it has run here
	memory map[image.Space]map[uint64][]byte
	writes uint64
	killed int // signal
	fenced bool
	slowed int // percent
}

// NewWorld makes an empty world.
func NewWorld() *World {
	return &World{faults: map[string]error{}, hooks: map[string]func(){}, pids: 100}
}

// Fail makes the step of that name ("alpha:dump", "beta:restore", …) fail from now on; nil lets it succeed again. Steps lists
// the names of those that were done.
func (w *World) Fail(step string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[step] = err
}

// Before calls f each time the step of that name is about to be done.
func (w *World) Before(step string, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooks[step] = f
}

// step does what Before and Fail asked for.
func (w *World) step(name string) error {
	w.mu.Lock()
	hook := w.hooks[name]
	w.steps = append(w.steps, name)
	w.mu.Unlock()
	if hook != nil {
		hook()
	}
	return w.fault(name)
}

// fault is what Fail asked for.
func (w *World) fault(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults[name]
}

// Steps are the steps that were begun, in order.
func (w *World) Steps() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.steps)
}

// Wrong lists what must never happen and did.
func (w *World) Wrong() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.wrong)
}

// Running lists the hosts on which a copy of the workload can run.
func (w *World) Running(workload string) []string { return w.in(workload, Running) }

// Held lists the hosts on which a copy of the workload is frozen.
func (w *World) Held(workload string) []string { return w.in(workload, Frozen) }

// Living lists the hosts on which there is a copy of the workload, whatever it does.
func (w *World) Living(workload string) []string { return w.in(workload, Running, Frozen, Stopped) }

func (w *World) in(workload string, states ...State) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var hosts []string
	for _, c := range w.copies {
		if c.Workload == workload && slices.Contains(states, c.state) {
			hosts = append(hosts, c.Host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

func (w *World) born(workload, host string, s State) *Copy {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pids++
	c := &Copy{Workload: workload, Host: host, Pid: w.pids, world: w, memory: map[image.Space]map[uint64][]byte{}}
	w.copies = append(w.copies, c)
	c.enter(s)
	return c
}

// set changes a copy's state. Two copies that could run at once, and a dead one that lives again, are written down.
func (c *Copy) set(s State) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	c.enter(s)
}

func (c *Copy) enter(s State) {
	if c.state == Dead && s != Dead {
		c.world.wrong = append(c.world.wrong, fmt.Sprintf("%s on %s was dead and is %s", c.Workload, c.Host, s))
		return
	}
	c.state = s
	if s != Running {
		return
	}
	c.ran = true
	for _, o := range c.world.copies {
		if o != c && o.Workload == c.Workload && o.state == Running {
			c.world.wrong = append(c.world.wrong, fmt.Sprintf("%s runs on %s and on %s", c.Workload, o.Host, c.Host))
		}
	}
}

// State is what the copy can do now.
func (c *Copy) State() State {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	return c.state
}

// Fenced says whether the copy's address is hidden.
func (c *Copy) Fenced() bool {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	return c.fenced
}

func (c *Copy) fence(on bool) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	c.fenced = on
}

// Throttled says how many percent of its time are taken from the copy.
func (c *Copy) Throttled() int {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	return c.slowed
}

func (c *Copy) throttled(percent int) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	c.slowed = percent
}

func (c *Copy) wrong(what string) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	c.world.wrong = append(c.world.wrong, c.Workload+" on "+c.Host+": "+what)
}

// Kill ends the copy with a signal, as its own crash would.
func (c *Copy) Kill(signal int) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	c.killed = signal
	c.enter(Dead)
}

// Write lets a running copy write n pages, each of a content that never was before.
func (c *Copy) Write(s image.Space, addr uint64, n int) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.state != Running {
		return
	}
	if c.memory[s] == nil {
		c.memory[s] = map[uint64][]byte{}
	}
	for i := range n {
		c.writes++
		page := bytes.Repeat([]byte(fmt.Sprintf("%08d", c.writes)), image.PageSize/8)
		c.memory[s][addr+uint64(i)*image.PageSize] = page
	}
}

// Memory is a copy of all pages.
func (c *Copy) Memory() map[image.Space]map[uint64][]byte {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	out := map[image.Space]map[uint64][]byte{}
	for s, pages := range c.memory {
		out[s] = map[uint64][]byte{}
		for a, p := range pages {
			out[s][a] = p
		}
	}
	return out
}
