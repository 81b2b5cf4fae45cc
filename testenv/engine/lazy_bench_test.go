package engine_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/image"
	"drover/engine/lazy"
)

// BenchmarkLazyHolds measures what memory costs in a blackout: a process is dumped and restored on one host, once with its memory
// beside the images and once in them, images in memory. Reading and sending the memory are not in it: a migration does that
// before the freeze, but for what has changed last. Each figure is the median of five.
func BenchmarkLazyHolds(b *testing.B) {
	onHost(b, func() {
		for _, megabytes := range []int{64, 256, 1024} {
			h := startHoard(b, megabytes)
			laps := map[string][]time.Duration{}
			for range 5 {
				h.measure(b, true, laps)
				h.measure(b, false, laps)
			}
			h.wantWork(b)
			for what, all := range laps {
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, fmt.Sprintf("ms/%d-MiB-%s", megabytes, what))
			}
			must(b, h.e.Kill(b.Context(), h.tree))
		}
		b.ReportMetric(0, "ns/op")
	})
}

// TestMuchMemoryIsDumpedLazily: CRIU keeps what it is shown of the memory of a lazy dump in pipes of at most 4 MiB, and dies of a
// descriptor above 1023 when it locks a connection. It is shown none.
func TestMuchMemoryIsDumpedLazily(t *testing.T) {
	onHost(t, func() {
		h := startHoard(t, 2560)
		dir, err := os.Open(t.TempDir())
		must(t, err)
		defer dir.Close()
		hold, err := h.e.Dump(t.Context(), engine.DumpRequest{Tree: h.tree, Images: dir, Lazy: true})
		must(t, err)
		must(t, hold.Abort(t.Context()))
		h.wantWork(t)
		log, err := os.ReadFile(filepath.Join(dir.Name(), "dump.log"))
		must(t, err)
		if shown := regexp.MustCompile(`Pagemap generated: (\d+) pages`).FindAllSubmatch(log, -1); !slices.ContainsFunc(shown, func(m [][]byte) bool { return len(m[1]) < 4 }) ||
			slices.ContainsFunc(shown, func(m [][]byte) bool { return len(m[1]) > 4 }) {
			t.Errorf("CRIU was shown %q", shown)
		}
		entries, err := lazy.Wanted(dir.Name(), uint64(h.tree.Pid))
		must(t, err)
		var left uint64
		for _, e := range entries {
			left += e.Pages
		}
		if left < 2560<<20/image.PageSize {
			t.Errorf("%d pages were left out", left)
		}
	})
}

// hoard is a process with much memory, none of it zeros; it looks at a page now and then and counts in its output.
const hoard = `
import os, sys, time
memory = os.urandom(1 << 20) * int(sys.argv[1])
n = 0
while True:
    n += 1
    memory[n * 4096 % len(memory)]
    os.pwrite(1, b"%d" % n, 0)
    time.sleep(0.001)
`

type hoardTree struct {
	e    *criu.Engine
	tree engine.Tree
	said string // the file that its output goes to
}

func startHoard(t testing.TB, megabytes int) *hoardTree {
	t.Helper()
	return startAlone(t, fmt.Sprintf("hoard-%d", megabytes), "/usr/bin/python3", "-c", hoard, fmt.Sprint(megabytes))
}

// startAlone starts a tree of one process that says something all the time.
func startAlone(t testing.TB, name string, argv ...string) *hoardTree {
	t.Helper()
	h := &hoardTree{e: criu.New(criu.Config{}), tree: engine.Tree{Cgroup: filepath.Join(cgroups, name)}, said: filepath.Join("/run", name)}
	must(t, os.Mkdir(h.tree.Cgroup, 0o755))
	out, err := os.Create(h.said)
	must(t, err)
	defer out.Close()
	dir, err := os.Open(h.tree.Cgroup)
	must(t, err)
	defer dir.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	must(t, cmd.Start())
	go cmd.Wait()
	h.tree.Pid = cmd.Process.Pid
	t.Cleanup(func() {
		must(t, h.e.Kill(context.Background(), h.tree))
		must(t, os.Remove(h.tree.Cgroup))
		os.Remove(h.said)
	})
	h.wantWork(t)
	return h
}

// wantWork waits until it goes on.
func (h *hoardTree) wantWork(t testing.TB) {
	t.Helper()
	before, _ := os.ReadFile(h.said)
	eventually(t, "the process works", func() bool { now, _ := os.ReadFile(h.said); return string(now) != string(before) })
}

// measure takes the process away and back.
func (h *hoardTree) measure(b *testing.B, beside bool, laps map[string][]time.Duration) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	kind := map[bool]string{true: "beside", false: "within"}[beside]
	lap := func(what string, since time.Time) {
		laps[what+"-"+kind] = append(laps[what+"-"+kind], time.Since(since))
	}
	dir, err := os.MkdirTemp("/run", "images")
	must(b, err)
	defer os.RemoveAll(dir)
	images, err := os.Open(dir)
	must(b, err)
	defer images.Close()

	var frozen time.Time
	begin := time.Now()
	hold, err := h.e.Dump(ctx, engine.DumpRequest{Tree: h.tree, Images: images, Lazy: beside, AtFreeze: func(context.Context) error {
		frozen = time.Now()
		return nil
	}})
	must(b, err)
	lap("dump", begin)
	lap("frozen", frozen)
	var f *lazy.Filler
	if beside {
		f = startFiller(b, h.e, h.tree, dir, copyMemory(b, h.tree, dir))
		defer f.Close()
	}
	begin = time.Now()
	_, err = hold.Commit(ctx)
	must(b, err)
	lap("dead", begin)
	eventually(b, "the process is gone", func() bool { _, err := os.Stat(fmt.Sprintf("/proc/%d", h.tree.Pid)); return err != nil })

	begin = time.Now()
	hold, err = h.e.Restore(ctx, engine.RestoreRequest{Images: images, Cgroup: h.tree.Cgroup, Lazy: beside})
	must(b, err)
	h.tree.Pid = hold.Pid()
	lap("restore", begin)
	if beside {
		begin = time.Now()
		_, err = f.Fill(ctx, nil)
		must(b, err)
		lap("fill", begin)
	}
	begin = time.Now()
	_, err = hold.Commit(ctx)
	must(b, err)
	lap("running", begin)
}
