package cgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestMountIsFoundBesideV1(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"30 24 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw", "/sys/fs/cgroup/unified"},
		{"30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate", "/sys/fs/cgroup"},
		{`30 24 0:26 / /mnt/a\040b rw - cgroup2 none rw`, "/mnt/a b"},
		{"31 24 0:27 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer", ""},
		{"torn", ""},
	} {
		if got, _ := cgroup2At(c.line); got != c.want {
			t.Errorf("%q: got %q, want %q", c.line, got, c.want)
		}
	}
}

// group makes a group for one test with a process in it and leaves nothing of either.
func group(t *testing.T) (Group, *exec.Cmd) {
	t.Helper()
	mount, err := Mount()
	if err != nil {
		t.Fatal(err)
	}
	g := For(mount, fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err := g.Make(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = g.Thaw(context.Background())
		_ = cmd.Wait()
		if err := g.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := g.Move(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return g, cmd
}

func TestFreezeHoldsAndThawReleases(t *testing.T) {
	g, cmd := group(t)
	ctx := context.Background()
	for range 2 { // both are idempotent
		if err := g.Freeze(ctx); err != nil || !g.Frozen() {
			t.Fatalf("freeze: %v, frozen %v", err, g.Frozen())
		}
	}
	for range 2 {
		if err := g.Thaw(ctx); err != nil || g.Frozen() {
			t.Fatalf("thaw: %v, frozen %v", err, g.Frozen())
		}
	}
	if pids, err := g.Pids(); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Fatalf("pids %v, %v; want only %d", pids, err, cmd.Process.Pid)
	}
}

func TestKillEndsAFrozenGroup(t *testing.T) {
	g, cmd := group(t)
	ctx := context.Background()
	if err := g.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Success() {
		t.Fatalf("the process ended by itself: %v", err)
	}
	if pids, err := g.Pids(); err != nil || len(pids) != 0 {
		t.Fatalf("left after the kill: %v, %v", pids, err)
	}
}

func TestRemoveRefusesAPopulatedGroup(t *testing.T) {
	g, _ := group(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx); err == nil {
		t.Fatal("a group with a process in it was removed")
	}
}

func TestAGroupThatIsGoneIsNoError(t *testing.T) {
	g := Group("/nonexistent/group")
	ctx := context.Background()
	if err := g.Kill(ctx); err != nil {
		t.Errorf("kill: %v", err)
	}
	if err := g.Thaw(ctx); err != nil {
		t.Errorf("thaw: %v", err)
	}
	if err := g.Remove(ctx); err != nil {
		t.Errorf("remove: %v", err)
	}
	if pids, err := g.Pids(); err != nil || len(pids) != 0 {
		t.Errorf("pids: %v, %v", pids, err)
	}
}
