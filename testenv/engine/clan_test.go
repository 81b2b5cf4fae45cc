package engine_test

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"drover/engine"
	"drover/engine/criu"
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
def content(page):
    if not count[page]:
        return bytes(PAGE)
    return struct.pack("<QQQQ", who[page], page, count[page], ~page & 0xffff) * (PAGE // 32)
def put(me, page):
    count[page] += 1
    who[page] = me
    memory[page * PAGE:(page + 1) * PAGE] = content(page)
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
                    if memory[page * PAGE:(page + 1) * PAGE] != content(page):
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
