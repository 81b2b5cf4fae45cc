package pace

import (
	"context"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// burst is for how long more than the share may be taken after less was.
	burst = 100 * time.Millisecond
	// longest is for how long a debt is paid back. What else this process does goes on without asking, for hours maybe: trees that come, cut-overs.
	// Who copies next stands still for no longer than this.
	longest = 10 * time.Second
)

// CPU holds this process to a share of the machine's processors, by the processor time that the kernel says it has used (getrusage(2)),
// whatever for. It may be used by several goroutines.
type CPU struct {
	cores float64 // that may be used
	now   func() (at, used time.Duration)

	mu       sync.Mutex
	at, used time.Duration // when it was looked at last
	over     time.Duration // processor time that has been used beyond the share
}

// NewCPU is for a share of all processors in percent; nil, which holds nobody, for 0 and for 100 and more.
func NewCPU(percent int) *CPU {
	if percent <= 0 || percent >= 100 {
		return nil
	}
	begun := time.Now()
	return newCPU(float64(percent)/100*float64(runtime.NumCPU()), func() (at, used time.Duration) { return time.Since(begun), processorTime() })
}

func newCPU(cores float64, now func() (at, used time.Duration)) *CPU {
	c := &CPU{cores: cores, now: now}
	c.at, c.used = now()
	return c
}

// Wait returns when more may be used, and says how long that took: at once as long as the share has not been used up. Whoever works calls it
// every few milliseconds of work.
func (c *CPU) Wait(ctx context.Context) (waited time.Duration, err error) {
	if c == nil {
		return 0, nil
	}
	begun, _ := c.now()
	for {
		over := c.owes()
		if over <= 0 {
			at, _ := c.now()
			return at - begun, ctx.Err()
		}
		select {
		case <-time.After(time.Duration(float64(over) / c.cores)):
		case <-ctx.Done():
			at, _ := c.now()
			return at - begun, ctx.Err()
		}
	}
}

// owes is how much processor time has been used beyond the share, as far as it is to be waited for.
func (c *CPU) owes() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, used := c.now()
	share := func(d time.Duration) time.Duration { return time.Duration(float64(d) * c.cores) }
	c.over = min(max(c.over+used-c.used-share(at-c.at), -share(burst)), share(longest))
	c.at, c.used = at, used
	return c.over
}

// processorTime is what this process has used, in user and system mode.
func processorTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
