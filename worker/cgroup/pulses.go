package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// pulsePeriod is the length of a pulse and the run after it: short enough that a client's request waits for one less than it
// waits for most disks, long enough that freezing and thawing some hundred threads is a small part of it.
const pulsePeriod = 50 * time.Millisecond

// pulses freezes a group for a part of each period, in a goroutine of its own: they end with this process, though perhaps
// within a pulse.
type pulses struct {
	group   Group
	percent atomic.Int64
	stop    chan struct{}
	stopped chan struct{}
}

func startPulses(g Group) *pulses {
	p := &pulses{group: g, stop: make(chan struct{}), stopped: make(chan struct{})}
	go p.run()
	return p
}

// end returns when no pulse comes any more. The group is thawed, if that could be done.
func (p *pulses) end() {
	close(p.stop)
	<-p.stopped
}

func (p *pulses) run() {
	defer close(p.stopped)
	for {
		frozen := pulsePeriod * time.Duration(p.percent.Load()) / 100
		// What somebody else has frozen stays so. A pulse does not wait until all is frozen: from the write on nothing of the group
		// runs user code, but for tasks in the kernel, which are let be.
		if frozen > 0 && !p.group.told() && p.group.write("cgroup.freeze", "1") == nil {
			p.wait(frozen)
			for p.group.write("cgroup.freeze", "0") != nil && p.group.told() {
				if !p.wait(pulsePeriod) {
					return // whoever ends this thaws the group, and says why it cannot
				}
			}
		}
		if !p.wait(pulsePeriod - frozen) {
			return
		}
	}
}

// wait returns after d, or at once and with false if the pulses are to end.
func (p *pulses) wait(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-p.stop:
		return false
	}
}

// told says whether the group has been told to freeze, by anybody.
func (g Group) told() bool {
	b, err := os.ReadFile(filepath.Join(string(g), "cgroup.freeze"))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}
