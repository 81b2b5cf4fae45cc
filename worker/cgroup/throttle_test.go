package cgroup

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// controlled is a directory that looks like a group with the cpu controller, whose processes use one processor and a half.
func controlled(t *testing.T, limit string) (g Group, read func(string) string) {
	t.Helper()
	g = Group(t.TempDir())
	for file, text := range map[string]string{"cpu.max": limit + "\n", "cpu.stat": "usage_usec 1000000\nuser_usec 900000\n", "cgroup.freeze": "0\n"} {
		if err := os.WriteFile(filepath.Join(string(g), file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return g, func(file string) string {
		b, err := os.ReadFile(filepath.Join(string(g), file))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func TestAQuotaIsAShareOfWhatWasUsedAndIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, read := controlled(t, "max 100000")
		th, err := NewThrottle(g)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) //nolint:forbidigo // a bubble's time
		if err := os.WriteFile(filepath.Join(string(g), "cpu.stat"), []byte("usage_usec 4000000\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			percent int
			want    string
		}{{20, "120000 100000"}, {40, "90000 100000"}, {80, "30000 100000"}} {
			if err := th.Set(step.percent); err != nil {
				t.Fatal(err)
			}
			// A control file takes a write as a whole; this one keeps what was longer.
			if got := read("cpu.max")[:len(step.want)]; got != step.want {
				t.Errorf("at %d %%: %q, want %q", step.percent, got, step.want)
			}
		}
		for range 2 {
			if err := th.End(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := read("cpu.max")[:len("max 100000")]; got != "max 100000" || th.Before() != "max 100000" {
			t.Errorf("afterwards it is %q, and was %q", got, th.Before())
		}
		if read("cgroup.freeze") != "0\n" {
			t.Error("its freezer was touched")
		}
	})
}

func TestTheControllerIsHandedDownWhereThereIsOne(t *testing.T) {
	for have, want := range map[string]string{"cpu memory pids": "+cpu", "memory pids": "", "cpuset": ""} {
		above := t.TempDir()
		for file, text := range map[string]string{"cgroup.controllers": have + "\n", "cgroup.subtree_control": ""} {
			if err := os.WriteFile(filepath.Join(above, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		th, err := NewThrottle(Group(filepath.Join(above, "redis")))
		if err != nil || th.How() != "freezer pulses" { // no kernel makes cpu.max here
			t.Errorf("with %s: %v, %s", have, err, th.How())
		}
		if got, _ := os.ReadFile(filepath.Join(above, "cgroup.subtree_control")); string(got) != want {
			t.Errorf("with %s it was told %q, want %q", have, got, want)
		}
	}
}

func TestAnIdleTreeKeepsTheLeastQuota(t *testing.T) {
	g, read := controlled(t, "50000 100000")
	th, err := NewThrottle(g)
	if err == nil {
		err = th.Set(80)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := read("cpu.max")[:11]; got != "1000 100000" {
		t.Errorf("it got %q", got)
	}
	if err := g.Unthrottle(th.Before()); err != nil || read("cpu.max")[:12] != "50000 100000" {
		t.Errorf("a limit that it had before is now %q: %v", read("cpu.max"), err)
	}
	if err := Group("/nonexistent/group").Unthrottle("max 100000"); err != nil {
		t.Errorf("a group that is gone: %v", err)
	}
}

func TestPulsesTakeTheirShareAndLeaveTheGroupRunning(t *testing.T) {
	g, _ := group(t)
	th := &Throttle{group: g} // as if there were no controller
	if err := th.Set(60); err != nil {
		t.Fatal(err)
	}
	frozen, running := 0, 0
	deadline := time.After(time.Second)
	for tick := time.NewTicker(time.Millisecond); ; {
		select {
		case <-tick.C:
			if g.told() {
				frozen++
			} else {
				running++
			}
			continue
		case <-deadline:
		}
		break
	}
	if share := 100 * frozen / (frozen + running); share < 40 || share > 80 {
		t.Errorf("it was frozen %d %% of the time", share)
	}
	for range 2 {
		if err := th.End(context.Background()); err != nil || g.Frozen() || g.told() {
			t.Fatalf("afterwards: %v, frozen %v, told %v", err, g.Frozen(), g.told())
		}
	}
}

func TestAPulseNeverThawsWhatSomebodyElseHasFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := Group(t.TempDir())
		freeze := filepath.Join(string(g), "cgroup.freeze")
		if err := os.WriteFile(freeze, []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
		p := startPulses(g)
		p.percent.Store(80)
		for range 100 {
			time.Sleep(3 * time.Millisecond) //nolint:forbidigo // a bubble's time
			if b, _ := os.ReadFile(freeze); string(b) != "1" {
				t.Fatalf("it was thawed: %q", b)
			}
		}
		p.end()
	})
}
