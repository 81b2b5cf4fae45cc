package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/image"
	"drover/engine/lazy"
	"drover/engine/track"
	"drover/internal/migration"
)

// clan is a tree of a libc, in Python, whose processes were forked and share the pages that neither has written to since. Each
// has threads that write their process's pages and look at all of them again and again: a page has the number of the process
// that wrote it last, its own, and how often. What it ought to have stands in the stack and heap beside, so that one that was
// lost or mixed up shows. Slots of 32 bytes in a file tell pid, work and wrong pages.
const clan = `
import os, struct, sys, threading, time
PAGE, PAGES, THREADS = 4096, 1024, 3
memory = bytearray(PAGE * PAGES)
who = [0] * PAGES
count = [0] * PAGES
def put(me, page):
    count[page] += 1
    who[page] = me
    struct.pack_into("<QQQ", memory, page * PAGE, me, page, count[page])
    struct.pack_into("<Q", memory, page * PAGE + PAGE - 8, count[page])
for page in range(PAGES):
    if page % 5:
        put(1, page)
out = os.open(sys.argv[1], os.O_RDWR)
def live(me):
    lock = threading.Lock()
    state = [0, 0]
    def work(t):
        rounds = 0
        while True:
            for page in range(t, PAGES, THREADS):
                with lock:
                    if page % 5:
                        got = struct.unpack_from("<QQQ", memory, page * PAGE)
                        end = struct.unpack_from("<Q", memory, page * PAGE + PAGE - 8)
                        if got != (who[page], page, count[page]) or end != (count[page],):
                            state[1] += 1
                    elif any(memory[page * PAGE:(page + 1) * PAGE:256]):
                        state[1] += 1
                    if page % 5 and (page * 7 + rounds) % 16 == me:
                        put(me, page)
                    state[0] += 1
                    if page % 64 == t:
                        os.pwrite(out, struct.pack("<QQQQ", os.getpid(), state[0], state[1], os.getuid()), me * 32)
            rounds += 1
            time.sleep(0.001)
    for t in range(THREADS - 1):
        threading.Thread(target=work, args=(t,), daemon=True).start()
    work(THREADS - 1)
for child in (2, 3, 4):
    if os.fork() == 0:
        if child == 3:
            os.setgid(65534)
            os.setuid(65534)
        if child == 4 and os.fork() == 0:
            live(5)
        live(child)
live(1)
`

const clanSize = 5

// clanTree is one that runs.
type clanTree struct {
	*testing.T
	e      *criu.Engine
	tree   engine.Tree
	slots  string
	images *os.File
}

func startClan(t *testing.T) *clanTree {
	t.Helper()
	c := &clanTree{T: t, e: criu.New(criu.Config{}), tree: engine.Tree{Cgroup: filepath.Join(cgroups, "clan")}, slots: "/run/clan"}
	must(t, os.Mkdir(c.tree.Cgroup, 0o755))
	must(t, os.WriteFile(c.slots, make([]byte, 32*(clanSize+1)), 0o666))
	cmd := exec.Command("/usr/bin/python3", "-c", clan, c.slots)
	dir, err := os.Open(c.tree.Cgroup)
	must(t, err)
	defer dir.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	must(t, cmd.Start())
	go cmd.Wait()
	c.tree.Pid = cmd.Process.Pid
	t.Cleanup(func() {
		must(t, c.e.Kill(context.Background(), c.tree))
		must(t, os.Remove(c.tree.Cgroup))
		os.Remove(c.slots)
	})
	c.newImages()
	c.wantRunning()
	return c
}

func (c *clanTree) newImages() {
	var err error
	c.images, err = os.Open(c.TempDir())
	must(c.T, err)
	c.Cleanup(func() { c.images.Close() })
}

type clanSlot struct{ pid, work, wrong, uid uint64 }

func (c *clanTree) look() (all []clanSlot) {
	b, err := os.ReadFile(c.slots)
	must(c.T, err)
	for i := 1; i <= clanSize; i++ {
		at := func(n int) uint64 { return binary.LittleEndian.Uint64(b[32*i+8*n:]) }
		all = append(all, clanSlot{at(0), at(1), at(2), at(3)})
	}
	return all
}

// wantRunning waits until every process, but those stopped, has looked at all its pages, and fails if one was wrong.
func (c *clanTree) wantRunning(stopped ...uint64) {
	c.Helper()
	before := c.look()
	eventually(c, "every process looks at all its pages", func() bool {
		for i, now := range c.look() {
			if !slices.Contains(stopped, now.pid) && now.work < before[i].work+2*1024 {
				return false
			}
		}
		return true
	})
	for i, now := range c.look() {
		if now.wrong != 0 {
			c.Fatalf("process %d (pid %d) found %d wrong pages", i+1, now.pid, now.wrong)
		}
		if slices.Contains(stopped, now.pid) && now.work != before[i].work {
			c.Errorf("process %d was stopped and works", i+1)
		}
		if wants := map[int]uint64{2: 65534}[i]; now.uid != wants {
			c.Errorf("process %d has uid %d", i+1, now.uid)
		}
	}
}

func (c *clanTree) wantStill() {
	c.Helper()
	before := c.look()
	time.Sleep(50 * time.Millisecond) // nothing tells that nothing happens
	if now := c.look(); !slices.Equal(now, before) {
		c.Errorf("it works while it is held: %v, then %v", before, now)
	}
}

func (c *clanTree) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	c.Cleanup(cancel)
	return ctx
}

// dump dumps lazily and reads the memory that was left out.
func (c *clanTree) dump(final migration.FinalState) (engine.Hold, copied) {
	c.Helper()
	h, err := c.e.Dump(c.ctx(), engine.DumpRequest{Tree: c.tree, FinalState: final, Images: c.images, Lazy: true})
	must(c.T, err)
	return h, copyMemory(c.T, c.tree, c.images.Name())
}

func (c *clanTree) restore(final migration.FinalState, memory lazy.Memory) (engine.Hold, *lazy.Filler) {
	c.Helper()
	f, err := lazy.Listen(c.images.Name(), memory)
	must(c.T, err)
	c.Cleanup(f.Close)
	h, err := c.e.Restore(c.ctx(), engine.RestoreRequest{Images: c.images, FinalState: final, Cgroup: c.tree.Cgroup, Lazy: true})
	must(c.T, err)
	c.tree.Pid = h.Pid()
	return h, f
}

// copied is a tree's memory by process, as the source sends it: pages of zeros are not sent, and runs are short.
type copied map[uint64][]lazy.Run

func copyMemory(t testing.TB, tree engine.Tree, images string) copied {
	t.Helper()
	still, err := track.OpenStill(tree)
	must(t, err)
	defer still.Close()
	spaces, err := image.Spaces(images)
	must(t, err)
	memory := copied{}
	for _, s := range spaces {
		if s.Kind != image.Process {
			continue
		}
		wanted, err := lazy.Wanted(images, s.ID)
		must(t, err)
		for _, e := range wanted {
			for at := e.Addr; at < e.End(); at += 256 * image.PageSize {
				data := make([]byte, min(256*image.PageSize, e.End()-at))
				must(t, still.Read(s.ID, at, data))
				memory.add(s.ID, at, data)
			}
		}
	}
	return memory
}

func (m copied) add(pid, at uint64, data []byte) {
	zeros := make([]byte, image.PageSize)
	for len(data) > 0 {
		empty, n := string(data[:image.PageSize]) == string(zeros), image.PageSize
		for n < len(data) && (string(data[n:][:image.PageSize]) == string(zeros)) == empty {
			n += image.PageSize
		}
		r := lazy.Run{Addr: at, Data: data[:n]}
		if empty {
			r.Data, r.Zero = nil, uint64(n/image.PageSize)
		}
		m[pid] = append(m[pid], r)
		at, data = at+uint64(n), data[n:]
	}
}

func (m copied) Runs(pid, from, to uint64) iter.Seq[lazy.Run] {
	return func(yield func(lazy.Run) bool) {
		runs := m[pid]
		first, _ := slices.BinarySearchFunc(runs, from, func(r lazy.Run, at uint64) int {
			switch {
			case r.Addr+uint64(len(r.Data))+r.Zero*image.PageSize <= at:
				return -1
			case r.Addr > at:
				return 1
			}
			return 0
		})
		for _, r := range runs[first:] {
			if r.Addr >= to || !yield(r) {
				return
			}
		}
	}
}

// TestMemoryIsCarriedBesideTheImages moves a tree of forked processes with a libc through lazy dumps and restores.
func TestMemoryIsCarriedBesideTheImages(t *testing.T) {
	onHost(t, func() {
		for _, c := range []struct {
			name string
			test func(*clanTree)
		}{
			{"an abort leaves it unharmed", func(c *clanTree) {
				h, _ := c.dump(migration.Dead)
				c.wantStill()
				must(c.T, h.Abort(c.ctx()))
				c.wantRunning()
			}},
			{"every page is right after a move", func(c *clanTree) {
				for range 3 {
					c.move(migration.Running)
					c.wantRunning()
					c.newImages()
				}
			}},
			{"a stopped process stays stopped", func(c *clanTree) {
				child := int(c.look()[3].pid)
				must(c.T, unix.Kill(child, unix.SIGSTOP))
				eventually(c, "it stops", func() bool { return stopped(child) })
				c.move(migration.Running)
				c.wantRunning(uint64(child))
				must(c.T, unix.Kill(child, unix.SIGCONT))
				c.wantRunning()
			}},
			{"it can be left stopped", func(c *clanTree) {
				c.move(migration.Stopped)
				c.wantStill()
				must(c.T, c.e.Continue(c.ctx(), c.tree, nil))
				c.wantRunning()
			}},
			{"CRIU killed at either hold loses nothing", func(c *clanTree) {
				h, _ := c.dump(migration.Dead)
				c.killCRIU(h)
				c.wantRunning()
				c.newImages()
				h, memory := c.dump(migration.Dead)
				_, err := h.Commit(c.ctx())
				must(c.T, err)
				h, f := c.restore(migration.Running, memory)
				_, err = f.Fill(c.ctx(), nil)
				must(c.T, err)
				c.killCRIU(h)
				c.finish(c.restore(migration.Running, memory))
				c.wantRunning()
			}},
			{"a filling that fails leaves nothing", func(c *clanTree) {
				h, memory := c.dump(migration.Dead)
				_, err := h.Commit(c.ctx())
				must(c.T, err)
				less := copied{}
				for pid, runs := range memory {
					less[pid] = runs
				}
				for pid, runs := range less {
					less[pid] = slices.Delete(slices.Clone(runs), len(runs)/2, len(runs)/2+1)
					break
				}
				h, f := c.restore(migration.Running, less)
				if _, err := f.Fill(c.ctx(), nil); err == nil || !strings.Contains(err.Error(), "missing") {
					c.Errorf("got %v", err)
				}
				if _, err := h.Commit(c.ctx()); err == nil {
					c.Error("it was committed with a page missing")
				}
				must(c.T, h.Abort(c.ctx()))
				if left, _ := os.ReadFile(filepath.Join(c.tree.Cgroup, "cgroup.procs")); len(left) > 0 {
					c.Errorf("left: %s", left)
				}
				c.finish(c.restore(migration.Running, memory))
				c.wantRunning()
			}},
		} {
			t.Run(c.name, func(t *testing.T) { c.test(startClan(t)) })
		}
	})
}

// move takes the tree away and back.
func (c *clanTree) move(final migration.FinalState) {
	c.Helper()
	h, memory := c.dump(migration.Dead)
	_, err := h.Commit(c.ctx())
	must(c.T, err)
	c.finish(c.restore(final, memory))
}

func (c *clanTree) finish(h engine.Hold, f *lazy.Filler) {
	c.Helper()
	stats, err := f.Fill(c.ctx(), nil)
	must(c.T, err)
	f.Close()
	c.Logf("filled: %+v", stats)
	_, err = h.Commit(c.ctx())
	must(c.T, err)
}

// killCRIU ends the only one there is, and waits until the hold knows.
func (c *clanTree) killCRIU(h engine.Hold) {
	c.Helper()
	for _, pid := range allPids() {
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); filepath.Base(exe) == "criu" {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	<-h.Lost()
	c.wantStill()
	if _, err := h.Commit(c.ctx()); !errors.Is(err, engine.ErrLost) {
		c.Errorf("commit of a lost hold: %v", err)
	}
	must(c.T, h.Abort(c.ctx()))
}
