package link

import (
	"sync"
	"time"
)

// deadline turns a point in time that may be moved at any moment into a channel to select on, as net.Pipe does.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{} // closed once the deadline has passed
}

func newDeadline() *deadline { return &deadline{passed: make(chan struct{})} }

// set moves the deadline; the zero time means none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer has fired: let it finish before its channel is looked at
	}
	d.timer = nil
	over := isClosed(d.passed)
	if t.IsZero() {
		if over {
			d.passed = make(chan struct{})
		}
		return
	}
	if left := time.Until(t); left > 0 {
		if over {
			d.passed = make(chan struct{})
		}
		passed := d.passed
		d.timer = time.AfterFunc(left, func() { close(passed) })
		return
	}
	if !over {
		close(d.passed)
	}
}

// wait is a channel that is closed when the deadline as it now stands has passed.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
