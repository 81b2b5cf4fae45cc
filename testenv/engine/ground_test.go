package engine_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/enginetest"
)

const cgroups = "/sys/fs/cgroup"

// ground is a test host with CRIU.
type ground struct {
	e     *criu.Engine
	clock *subject // a tree that nobody dumps: while it works, time passes
	names atomic.Int64
}

func newGround(t testing.TB) *ground {
	g := &ground{e: criu.New(criu.Config{})}
	g.clock = g.start(t)
	return g
}

func (g *ground) Engine() engine.Engine { return g.e }

func (g *ground) Start(t testing.TB) enginetest.Subject { return g.start(t) }

// Pass waits until the clock has done work that takes a good while longer than one piece does.
func (g *ground) Pass(t testing.TB) {
	first := slot(g.clock.file, 0).Works[0]
	eventually(t, "the clock goes on", func() bool { return atomic.LoadUint64(&slot(g.clock.file, 0).Works[0]) > first+50 })
}

// LoseEngine kills the criu that holds: the only one there is.
func (g *ground) LoseEngine(t testing.TB, _ engine.Hold) {
	n := 0
	for _, pid := range allPids() {
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); filepath.Base(exe) == "criu" {
			n++
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	if n != 1 {
		t.Errorf("%d processes run criu", n)
	}
}

func allPids() (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (g *ground) start(t testing.TB, env ...string) *subject {
	t.Helper()
	name := fmt.Sprintf("victim-%d", g.names.Add(1))
	s := &subject{tree: engine.Tree{Cgroup: filepath.Join(cgroups, name)}}
	if err := os.Mkdir(s.tree.Cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	counts := filepath.Join("/run", name)
	var err error
	if s.file, err = mapCounters(counts); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(s.tree.Cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), victimEnv + "=parent", countersEnv + "=" + counts}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	s.tree.Pid = cmd.Process.Pid
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := g.e.Kill(ctx, s.tree); err != nil {
			t.Error(err)
		}
		if err := os.Remove(s.tree.Cgroup); err != nil {
			t.Error(err)
		}
		unix.Munmap(s.file)
		os.Remove(counts)
	})
	eventually(t, "the victim is ready", func() bool {
		for i := range victimKids + 1 {
			if atomic.LoadUint64(&slot(s.file, i).Ready) == 0 {
				return false
			}
		}
		return slot(s.file, 0).Rounds > 2
	})
	return s
}

// subject is a victim.
type subject struct {
	tree engine.Tree
	file []byte
}

func (s *subject) Tree() engine.Tree { return s.tree }

func (s *subject) StoppedBy(images string) engine.Tree {
	t := s.tree
	t.Lock = criu.LockName(images)
	return t
}

func (s *subject) Options() engine.Options { return engine.Options{TCPEstablished: true} }

func (s *subject) Into(images *os.File) engine.RestoreRequest {
	return engine.RestoreRequest{Images: images, Options: s.Options(), Cgroup: s.tree.Cgroup}
}

func (s *subject) Restored(pid int) { s.tree.Pid = pid }

func (s *subject) Look(testing.TB) map[int]enginetest.Process {
	all := map[int]enginetest.Process{}
	for i := range victimKids + 1 {
		c := slot(s.file, i)
		pid := int(c.Pid)
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			continue
		}
		p := enginetest.Process{Stopped: stopped(pid)}
		for w := range c.Works {
			p.Work += atomic.LoadUint64(&c.Works[w])
		}
		all[pid] = p
	}
	return all
}

// stopped says whether every thread of a process is stopped by a signal.
func stopped(pid int) bool {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
		_, after, _ := strings.Cut(string(stat), ") ")
		if !strings.HasPrefix(after, "T") {
			return false
		}
	}
	return len(tasks) > 0
}

func (s *subject) Stop(t testing.TB, pid int) {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process stops", func() bool { return stopped(pid) })
}

func (s *subject) Resume(t testing.TB, pid int) {
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// Verify looks at the counts of what went wrong and, if no process is stopped, waits until pipes and connections have carried
// something.
func (s *subject) Verify(t testing.TB) {
	t.Helper()
	running := true
	for _, p := range s.Look(t) {
		running = running && !p.Stopped
	}
	for i := range victimKids + 1 {
		c := slot(s.file, i)
		rounds, heard := atomic.LoadUint64(&c.Rounds), atomic.LoadUint64(&c.Heard)
		if running {
			eventually(t, "the pipes carry the token", func() bool { return atomic.LoadUint64(&c.Rounds) > rounds })
			eventually(t, "the connections carry messages", func() bool { return atomic.LoadUint64(&c.Heard) > heard+victimKids })
		}
	}
	for i := range victimKids + 1 {
		if n := atomic.LoadUint64(&slot(s.file, i).Wrong); n != 0 {
			t.Errorf("process %d found %d wrong pages, counts or messages", slot(s.file, i).Pid, n)
		}
	}
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}
