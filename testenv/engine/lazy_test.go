package engine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/image"
	"drover/engine/lazy"
	"drover/engine/track"
	"drover/internal/migration"
)

// dump dumps lazily and reads the memory that was left out.
func (c *clanTree) dump(final migration.FinalState) (engine.Hold, copied) {
	c.Helper()
	h, err := c.e.Dump(c.ctx(), engine.DumpRequest{Tree: c.tree, FinalState: final, Images: c.images, Lazy: true})
	must(c.T, err)
	return h, copyMemory(c.T, c.tree, c.images.Name())
}

func (c *clanTree) restore(final migration.FinalState, memory lazy.Memory) (engine.Hold, *lazy.Filler) {
	c.Helper()
	f := startFiller(c, c.e, c.tree, c.images.Name(), memory)
	h, err := c.e.Restore(c.ctx(), engine.RestoreRequest{Images: c.images, FinalState: final, Cgroup: c.tree.Cgroup, Lazy: true})
	must(c.T, err)
	c.tree.Pid = h.Pid()
	return h, f
}

// startFiller begins to fill in the memory of a tree that is to be restored, at once; it ends with the test, or when it is closed.
func startFiller(t testing.TB, e *criu.Engine, tree engine.Tree, images string, memory lazy.Memory) *lazy.Filler {
	t.Helper()
	f, err := lazy.Listen(images, lazy.Config{Memory: lazy.Known(memory), Eager: true, Kill: func() error { return e.Kill(context.Background(), tree) }})
	must(t, err)
	t.Cleanup(f.Close)
	return f
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
	if os.Getenv(driverEnv) != "" {
		driveCRIU(t)
		return
	}
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
				c.end(h)
				h, f := c.restore(migration.Running, memory)
				_, err := f.Fill(c.ctx(), nil)
				must(c.T, err)
				c.killCRIU(h)
				c.wantNothing()
				c.finish(c.restore(migration.Running, memory))
				c.wantRunning()
			}},
			{"the death of who drives CRIU at a dump's hold leaves it frozen, and it can go on", func(c *clanTree) {
				kill := c.drive("dump")
				c.wantStill()
				kill()
				c.wantStill()
				must(c.T, os.WriteFile(filepath.Join(c.tree.Cgroup, "cgroup.freeze"), []byte("0"), 0))
				c.wantRunning()
				c.newImages()
				c.move(migration.Running)
				c.wantRunning()
			}},
			{"the death of who drives CRIU at a restore's hold leaves nothing", func(c *clanTree) {
				h, memory := c.dump(migration.Dead)
				c.end(h)
				f := startFiller(c, c.e, c.tree, c.images.Name(), memory)
				defer f.Close()
				kill := c.drive("restore")
				_, err := f.Fill(c.ctx(), nil)
				must(c.T, err)
				c.wantStill()
				kill()
				c.wantNothing()
				c.finish(c.restore(migration.Running, memory))
				c.wantRunning()
			}},
			{"a filling that fails leaves nothing", func(c *clanTree) {
				h, memory := c.dump(migration.Dead)
				c.end(h)
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
				c.wantNothing()
				h, f = c.restore(migration.Running, copied{}) // nor are the pages there that the rebuilding touches
				if _, err := f.Fill(c.ctx(), nil); err == nil || !strings.Contains(err.Error(), "missing") {
					c.Errorf("got %v", err)
				}
				must(c.T, h.Abort(c.ctx()))
				c.wantNothing()
				c.finish(c.restore(migration.Running, memory))
				c.wantRunning()
			}},
		} {
			t.Run(c.name, func(t *testing.T) { c.test(startClan(t)) })
		}
	})
}

// wantNothing waits until nothing is left of the tree, its pids included: a restore needs them.
func (c *clanTree) wantNothing() {
	c.Helper()
	eventually(c, "nothing is left", func() bool {
		left, err := os.ReadFile(filepath.Join(c.tree.Cgroup, "cgroup.procs"))
		return err == nil && len(left) == 0
	})
	for _, p := range c.look() {
		eventually(c, fmt.Sprintf("pid %d is free", p.pid), func() bool { return unix.Kill(int(p.pid), 0) == unix.ESRCH })
	}
}

// move takes the tree away and back.
func (c *clanTree) move(final migration.FinalState) {
	c.Helper()
	h, memory := c.dump(migration.Dead)
	c.end(h)
	c.finish(c.restore(final, memory))
}

// end gives a dumped tree its final state, dead.
func (c *clanTree) end(h engine.Hold) {
	c.Helper()
	_, err := h.Commit(c.ctx())
	must(c.T, err)
	c.wantNothing()
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
	for _, pid := range running("criu") {
		unix.Kill(pid, unix.SIGKILL)
	}
	<-h.Lost()
	c.wantStill()
	if _, err := h.Commit(c.ctx()); !errors.Is(err, engine.ErrLost) {
		c.Errorf("commit of a lost hold: %v", err)
	}
	must(c.T, h.Abort(c.ctx()))
}

// driverEnv makes this binary a process that drives CRIU as a keeper does, until it is killed: "dump", "dump-whole" (its memory too) or
// "restore", the root's pid, the cgroup, the images.
const driverEnv = "DROVER_ENGINETEST_DRIVER"

// drive starts such a process and returns when it holds the tree; kill ends it, and returns when CRIU has ended too.
func (c *clanTree) drive(what string) (kill func()) {
	c.Helper()
	cmd := driver(what, c.tree, c.images.Name())
	out, err := cmd.StdoutPipe()
	must(c.T, err)
	must(c.T, cmd.Start())
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || said != "held\n" {
		rest, _ := io.ReadAll(out) // it ends by itself
		c.Fatalf("the driver said %q and %s", said, rest)
	}
	return func() {
		must(c.T, cmd.Process.Kill())
		cmd.Wait()
		eventually(c, "CRIU ends", func() bool { return len(running("criu")) == 0 })
	}
}

func driver(what string, tree engine.Tree, images string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestMemoryIsCarriedBesideTheImages$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s %s", driverEnv, what, tree.Pid, tree.Cgroup, images))
	return cmd
}

func driveCRIU(t *testing.T) {
	var what string
	r := engine.RestoreRequest{Lazy: true}
	d := engine.DumpRequest{}
	var dir string
	_, err := fmt.Sscan(os.Getenv(driverEnv), &what, &d.Tree.Pid, &d.Tree.Cgroup, &dir)
	must(t, err)
	d.Images, err = os.Open(dir)
	must(t, err)
	r.Images, r.Cgroup = d.Images, d.Tree.Cgroup
	e := criu.New(criu.Config{})
	if what == "restore" {
		_, err = e.Restore(t.Context(), r)
	} else {
		d.Lazy = what == "dump"
		_, err = e.Dump(t.Context(), d)
	}
	must(t, err)
	fmt.Println("held")
	select {} // until it is killed
}

// running lists the processes that run a program of that name.
func running(name string) (pids []int) {
	for _, pid := range allPids() {
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); filepath.Base(exe) == name {
			pids = append(pids, pid)
		}
	}
	return pids
}
