package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Group is the absolute path of a cgroup v2 directory.
type Group string

// For is the group of a workload on the hierarchy mounted at mount.
func For(mount, name string) Group { return Group(filepath.Join(mount, "drover", name)) }

// Make makes the group and those above it. One that is there already is no error.
func (g Group) Make() error {
	if err := os.MkdirAll(string(g), 0o755); err != nil {
		return errs.New(errs.Failed, "make cgroup %s: %w", g, err)
	}
	return nil
}

// Exists says whether the group's directory is there.
func (g Group) Exists() bool {
	_, err := os.Stat(string(g))
	return err == nil
}

// Pids lists the processes of the group and of the groups below it, in no order. A group that is gone has none. A process
// that the caller's pid namespace cannot see is listed as 0.
func (g Group) Pids() ([]int, error) {
	var pids []int
	err := filepath.WalkDir(string(g), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return gone(err)
		}
		b, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		for field := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(field); err == nil {
				pids = append(pids, n)
			}
		}
		return gone(err)
	})
	if err != nil {
		return nil, errs.New(errs.Failed, "list the processes of cgroup %s: %w", g, err)
	}
	return pids, nil
}

// gone turns the errors of a group that vanished while it was read into none.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Move puts a process, all its threads included, into the group.
func (g Group) Move(pid int) error {
	if err := g.write("cgroup.procs", strconv.Itoa(pid)); err != nil {
		return errs.New(errs.Failed, "move process %d into cgroup %s: %w", pid, g, err)
	}
	return nil
}

// Freeze stops every process of the group and returns when none runs. It is idempotent.
func (g Group) Freeze(ctx context.Context) error {
	if err := g.write("cgroup.freeze", "1"); err != nil {
		return errs.New(errs.Failed, "freeze cgroup %s: %w", g, err)
	}
	if err := g.await(ctx, "frozen", "1"); err != nil {
		return errs.New(errs.KindOf(err), "cgroup %s did not freeze: %w", g, err)
	}
	return nil
}

// Thaw lets the group's processes run. It is idempotent; a group that is gone is no error.
func (g Group) Thaw(ctx context.Context) error {
	if err := g.write("cgroup.freeze", "0"); err != nil {
		if gone(err) == nil {
			return nil
		}
		return errs.New(errs.Failed, "thaw cgroup %s: %w", g, err)
	}
	if err := g.await(ctx, "frozen", "0"); err != nil {
		return errs.New(errs.KindOf(err), "cgroup %s did not thaw: %w", g, err)
	}
	return nil
}

// Frozen says whether every process of the group is frozen now.
func (g Group) Frozen() bool {
	v, err := g.event("frozen")
	return err == nil && v == "1"
}

// Kill ends every process of the group with SIGKILL, frozen and stopped ones too, and returns when none is left but zombies
// that their parent has not looked at. It is idempotent; a group that is gone is no error.
func (g Group) Kill(ctx context.Context) error {
	err := g.write("cgroup.kill", "1")
	switch {
	case gone(err) == nil && err != nil && !g.Exists():
		return nil
	case err != nil: // kernels before 5.14 have no cgroup.kill
		if err := g.killEach(ctx); err != nil {
			return err
		}
	}
	if err := g.await(ctx, "populated", "0"); err != nil {
		return errs.New(errs.KindOf(err), "cgroup %s still has processes after SIGKILL: %w", g, err)
	}
	return nil
}

// killEach freezes the group, so that nothing forks meanwhile, and kills its processes one by one.
func (g Group) killEach(ctx context.Context) error {
	if err := g.Freeze(ctx); err != nil {
		return err
	}
	pids, err := g.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL) // fails only for one that is gone
		}
	}
	return g.Thaw(ctx)
}

// Remove removes the group and those below it. They must be empty: a process in one is an error once ctx is done. Zombies do
// not count, but may hold the directory for a moment. A group that is gone is no error.
func (g Group) Remove(ctx context.Context) error {
	for {
		err := g.removeNow()
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (g Group) removeNow() error {
	var dirs []string
	_ = filepath.WalkDir(string(g), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := unix.Rmdir(dirs[i]); err != nil && gone(err) != nil {
			return errs.New(errs.Conflict, "remove cgroup %s: %w", dirs[i], err).WithNext("see which processes hold it: cat %s/cgroup.procs", dirs[i])
		}
	}
	return nil
}

func (g Group) write(file, value string) error {
	f, err := os.OpenFile(filepath.Join(string(g), file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
