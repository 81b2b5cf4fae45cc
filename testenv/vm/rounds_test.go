package vm_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/image"
	"drover/engine/track"
	"drover/testenv/host/hosttest"
)

// within bounds every wait; a machine under emulation is slow.
const within = time.Minute

func TestWhatSoftDirtyRoundsEmitAndAFinalDumpMakeAWholeTree(t *testing.T) {
	victims := []string{"./testenv/victims/dirtier", "./testenv/victims/counter", "./testenv/victims/shm"}
	inMachine(t, 1024, victims, func() {
		for _, v := range []struct {
			name    string
			argv    []string
			shrinks bool // most of its memory is not written to
		}{
			{"memory", []string{"dirtier", "-memory", "64M", "-working-set", "2M", "-rate", "500"}, true},
			{"processes", []string{"counter", "-processes", "4", "-fan-out", "3", "-threads", "2"}, true},
			{"shared memory", []string{"shm", "-size", "1M"}, false},
		} {
			t.Run(v.name, func(t *testing.T) { moves(t, start(t, append(v.argv, "-say", "100ms")...), v.shrinks) })
		}
	})
}

// moves makes rounds of a victim's memory, dumps it on the last, restores it from what a target would have, and lets it look.
func moves(t *testing.T, v *victim, shrinks bool) {
	e := criu.New(criu.Config{})
	tracker := track.NewSoftDirty(e, v.tree, engine.Options{}, t.TempDir())
	received := target{}
	var emitted []uint64
	for range 3 {
		v.works(t)
		stats, err := tracker.Round(t.Context(), received.take)
		if err != nil {
			t.Fatal(err)
		}
		if stats.Tracker != "softdirty" || stats.Processes != v.processes(t) || stats.Emitted == 0 {
			t.Errorf("round %d of %d processes: %+v", len(emitted)+1, v.processes(t), stats)
		}
		emitted = append(emitted, stats.Emitted)
	}
	v.works(t)

	complete := t.TempDir()
	final := v.dump(t, e, tracker.Parent(), &assembly{received: received, dir: complete})
	if err := tracker.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("rounds emitted %v pages; the final dump wrote %d, %d came before, frozen for %v", emitted, final.PagesWritten, final.PagesParent, final.Frozen)
	if final.PagesParent == 0 {
		t.Error("the final dump took nothing from the rounds")
	}
	for i, n := range append(emitted[1:], final.PagesWritten) {
		if shrinks && n > emitted[0]/2 {
			t.Errorf("round %d has %d pages, the first had %d", i+2, n, emitted[0])
		}
	}

	v.restore(t, e, complete)
	v.works(t)
	v.ends(t)
}

// victim is a tree in a cgroup of its own that says how it goes into a file.
type victim struct {
	tree engine.Tree
	says string
}

func start(t *testing.T, argv ...string) *victim {
	t.Helper()
	v := &victim{tree: engine.Tree{Cgroup: "/sys/fs/cgroup/victim"}, says: "/var/log/victim"}
	if err := os.Mkdir(v.tree.Cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	cgroup, err := os.Open(v.tree.Cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer cgroup.Close()
	says, err := os.Create(v.says)
	if err != nil {
		t.Fatal(err)
	}
	defer says.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = says, says
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait() // its reports say how it ended
	v.tree.Pid = cmd.Process.Pid
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if err := errors.Join(criu.New(criu.Config{}).Kill(ctx, v.tree), os.Remove(v.tree.Cgroup)); err != nil {
			t.Error(err)
		}
	})
	return v
}

func (v *victim) said(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(v.says)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// works returns once the victim has done some work from now on.
func (v *victim) works(t *testing.T) {
	t.Helper()
	before := len(v.said(t))
	hosttest.Eventually(t, "the victim says how it goes", func() bool { return len(v.said(t)) > before+3 })
}

func (v *victim) processes(t *testing.T) int {
	t.Helper()
	pids, err := os.ReadFile(filepath.Join(v.tree.Cgroup, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return len(strings.Fields(string(pids)))
}

// dump takes the victim away; its pages go into the assembly, the other images beside them.
func (v *victim) dump(t *testing.T, e engine.Engine, parent string, into *assembly) engine.Stats {
	t.Helper()
	source, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	server, client := os.NewFile(uintptr(fds[0]), "server"), os.NewFile(uintptr(fds[1]), "client")
	defer client.Close()
	served := make(chan error, 1)
	go func() {
		defer server.Close() // ends the dump if the assembly failed
		served <- image.ServePages(server, into, func(image.Space) bool { return parent != "" })
	}()
	hold, err := e.Dump(t.Context(), engine.DumpRequest{Tree: v.tree, Images: source, Parent: parent, Pages: client})
	client.Close()
	if err := errors.Join(err, <-served); err != nil {
		t.Fatal(err)
	}
	stats, err := hold.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	images, err := filepath.Glob(filepath.Join(source.Name(), "*.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range images {
		if err := os.Rename(name, filepath.Join(into.dir, filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
	}
	return stats
}

func (v *victim) restore(t *testing.T, e engine.Engine, from string) {
	t.Helper()
	images, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	hold, err := e.Restore(t.Context(), engine.RestoreRequest{Images: images, Cgroup: v.tree.Cgroup})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// ends lets the victim look at all its memory a last time, and reads what it found.
func (v *victim) ends(t *testing.T) {
	t.Helper()
	if err := unix.Kill(v.tree.Pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "the victim has ended", func() bool { return v.processes(t) == 0 })
	said := v.said(t)
	if last := said[len(said)-1]; !strings.Contains(last, `"faults":0,`) && !strings.Contains(last, `"faults":0}`) {
		t.Errorf("it says %s", last)
	}
}
