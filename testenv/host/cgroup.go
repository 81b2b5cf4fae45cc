package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// The test bed has cgroup code of its own instead of the worker's: what is under test must not hold up the test.

// group is a cgroup v2 directory.
type group string

// bedsGroup is the group above all beds of this machine.
func bedsGroup() (group, error) {
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", errs.New(errs.Failed, "find the cgroup v2 mount: %w", err)
	}
	defer info.Close()
	for lines := bufio.NewScanner(info); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return group(filepath.Join(fields[4], "drover-testbed")), nil
		}
	}
	return "", errs.New(errs.Refused, "no cgroup v2 file system is mounted").
		WithNext("mount one: `mount -t cgroup2 none /sys/fs/cgroup/unified`")
}

func (g group) child(name string) group { return group(filepath.Join(string(g), name)) }

func (g group) make() error {
	if err := os.MkdirAll(string(g), 0o755); err != nil {
		return errs.New(errs.Failed, "make a cgroup: %w", err)
	}
	return nil
}

func (g group) write(file, value string) error {
	err := os.WriteFile(filepath.Join(string(g), file), []byte(value), 0)
	if err != nil {
		return errs.New(errs.Failed, "write %q to a cgroup: %w", value, err)
	}
	return nil
}

// delegate lets g's children have every controller that g has. Without any, groups still freeze and kill.
func (g group) delegate() error {
	have, err := os.ReadFile(filepath.Join(string(g), "cgroup.controllers"))
	if err != nil {
		return errs.New(errs.Failed, "read a cgroup's controllers: %w", err)
	}
	for _, controller := range strings.Fields(string(have)) {
		if err := g.write("cgroup.subtree_control", "+"+controller); err != nil {
			return err
		}
	}
	return nil
}

// freeze stops or resumes everything below g and returns when that has happened.
func (g group) freeze(ctx context.Context, frozen bool) error {
	want := map[bool]string{true: "1", false: "0"}[frozen]
	if err := g.write("cgroup.freeze", want); err != nil {
		return err
	}
	return g.awaitEvent(ctx, "frozen "+want)
}

// kill ends everything below g, frozen or not, and returns when it is gone. A group that is not there is no error.
func (g group) kill(ctx context.Context) error {
	if err := g.write("cgroup.kill", "1"); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return g.awaitEvent(ctx, "populated 0")
}

// awaitEvent returns when cgroup.events holds the line.
func (g group) awaitEvent(ctx context.Context, line string) error {
	for {
		events, err := os.ReadFile(filepath.Join(string(g), "cgroup.events"))
		if err != nil {
			return errs.New(errs.Failed, "watch a cgroup: %w", err)
		}
		if slices.Contains(strings.Split(string(events), "\n"), line) {
			return nil
		}
		if err := pause(ctx); err != nil {
			return errs.New(errs.Timeout, "wait for %q in %s: %w", line, g, err)
		}
	}
}

// remove kills what is in g and removes it with all groups below it.
func (g group) remove(ctx context.Context) error {
	if err := g.kill(ctx); err != nil {
		return err
	}
	for {
		err := g.rmdirAll()
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) { // a process that has ended may hold its group for a moment
			return errs.New(errs.Failed, "remove a cgroup: %w", err)
		}
		if waited := pause(ctx); waited != nil {
			return errs.New(errs.Timeout, "remove cgroup %s: %w", g, err)
		}
	}
}

// rmdirAll removes the groups below g, deepest first, and g.
func (g group) rmdirAll() error {
	all := g.below()
	slices.Reverse(all)
	for _, dir := range all {
		if err := unix.Rmdir(string(dir)); err != nil && err != unix.ENOENT {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

// below lists g and every group in it, parents first. A group that is not there has none.
func (g group) below() []group {
	var all []group
	_ = filepath.WalkDir(string(g), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, group(path))
		}
		return nil // groups come and go while we look
	})
	return all
}

// pause waits a moment before a condition that the kernel does not announce is looked at again.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * time.Millisecond):
		return nil
	}
}
