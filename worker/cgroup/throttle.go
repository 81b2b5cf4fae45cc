package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/errs"
)

// Throttle takes part of the time of a group's processes: by cpu.max where the group has that controller, else by pulses of
// its freezer. Between NewThrottle and the return of End nobody else may freeze or thaw the group: a frozen group is also how a
// tree is held, and a pulse ends in a thaw. Its methods are called from one goroutine.
type Throttle struct {
	group  Group
	before string // cpu.max as it was; "" where pulses serve
	used   usage  // when the throttle was made
	cores  float64
	pulses *pulses
}

const (
	// quotaPeriod is cpu.max's period, and leastQuota the least quota that kernels take in it, in microseconds.
	quotaPeriod = 100_000
	leastQuota  = 1_000
)

// NewThrottle takes nothing yet. From now on it notes what the group uses, so that a share of that can be taken later.
func NewThrottle(g Group) (*Throttle, error) {
	t := &Throttle{group: g}
	g.offerCPU()
	max, err := os.ReadFile(filepath.Join(string(g), "cpu.max"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return t, nil
	case err != nil:
		return nil, errs.New(errs.Failed, "read the limit of cgroup %s: %w", g, err)
	}
	t.before = strings.TrimSpace(string(max))
	t.used, err = g.usage()
	return t, err
}

// offerCPU has the group above hand the cpu controller down, where it has that: it is drover's own, with trees in it and nothing
// else. The trees share the processors as one each from then on. Where it cannot be there are pulses.
func (g Group) offerCPU() {
	above := Group(filepath.Dir(string(g)))
	if b, err := os.ReadFile(filepath.Join(string(above), "cgroup.controllers")); err == nil && slices.Contains(strings.Fields(string(b)), "cpu") {
		_ = above.write("cgroup.subtree_control", "+cpu")
	}
}

// Before is what Unthrottle needs if this process dies before End.
func (t *Throttle) Before() string { return t.before }

// How is by what time is taken, for people.
func (t *Throttle) How() string {
	if t.before != "" {
		return "cpu.max"
	}
	return "freezer pulses"
}

// Set takes that many percent of the group's time from now on, 0 to 99.
func (t *Throttle) Set(percent int) error {
	if t.before == "" {
		if t.pulses == nil {
			t.pulses = startPulses(t.group)
		}
		t.pulses.percent.Store(int64(percent))
		return nil
	}
	if t.cores == 0 { // of what it used while nothing was taken: a quota in processors would not touch a tree that uses one of many
		now, err := t.group.usage()
		if err != nil {
			return err
		}
		t.cores = now.since(t.used)
	}
	quota := max(leastQuota, int64(t.cores*quotaPeriod*float64(100-percent)/100))
	if err := t.group.write("cpu.max", fmt.Sprintf("%d %d", quota, quotaPeriod)); err != nil {
		return errs.New(errs.Failed, "limit cgroup %s: %w", t.group, err)
	}
	return nil
}

// End gives the group all of its time back and returns when it runs. It is idempotent.
func (t *Throttle) End(ctx context.Context) error {
	if t.pulses != nil {
		t.pulses.end()
		if err := t.group.Thaw(ctx); err != nil {
			return err
		}
		t.pulses = nil
	}
	return t.group.Unthrottle(t.before)
}

// Unthrottle undoes, for a Throttle whose process has died, what is not undone by thawing: before is what it said. A group
// that is gone is no error.
func (g Group) Unthrottle(before string) error {
	if before == "" {
		return nil
	}
	if err := g.write("cpu.max", before); gone(err) != nil {
		return errs.New(errs.Failed, "lift the limit of cgroup %s: %w", g, err).WithNext("echo %s > %s/cpu.max", before, g)
	}
	return nil
}

// usage is how much of the processors a group has used up to a moment.
type usage struct {
	at   time.Time
	used time.Duration
}

func (g Group) usage() (usage, error) {
	b, err := os.ReadFile(filepath.Join(string(g), "cpu.stat"))
	if err != nil {
		return usage{}, errs.New(errs.Failed, "read what cgroup %s has used: %w", g, err)
	}
	n, err := strconv.ParseInt(eventIn(string(b), "usage_usec"), 10, 64)
	if err != nil {
		return usage{}, errs.New(errs.Failed, "read what cgroup %s has used: cpu.stat has no usage_usec", g)
	}
	return usage{time.Now(), time.Duration(n) * time.Microsecond}, nil
}

// since is how many processors were in use between two moments.
func (u usage) since(earlier usage) float64 {
	return (u.used - earlier.used).Seconds() / max(u.at.Sub(earlier.at), time.Millisecond).Seconds()
}
