package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/image"
	"drover/engine/lazy"
	"drover/internal/migration"
)

// brood is a process that does to its memory what a userfaultfd has to follow: it forks children, which look at their memory and
// fork others, has its memory moved (realloc of a large block is mremap), and gives blocks back for new ones (munmap, mmap). What each
// page ought to have it knows. Three numbers of 64 bits in a file tell how often it has done so, how many pages were wrong, and its pid.
const brood = `
import os, struct, sys
PAGE, PAGES, BLOCKS, BLOCK = 4096, 16384, 24, 256
def content(page, n):
    return struct.pack("<QQ", page, n) * (PAGE // 16)
seed = 1
def draw(n):
    global seed
    seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
    return (seed >> 33) % n
def put(memory, page, n):
    memory[page * PAGE:(page + 1) * PAGE] = content(page, n)
def block(n):
    memory = bytearray(PAGE * BLOCK)
    for page in range(BLOCK):
        put(memory, page, n)
    return memory
memory, count = bytearray(PAGE * PAGES), [1] * PAGES
for page in range(PAGES):
    put(memory, page, 1)
blocks, ages = [block(n) for n in range(BLOCKS)], list(range(BLOCKS))
def wrong(n):
    bad = 0
    for _ in range(n):
        page = draw(PAGES)
        bad += memory[page * PAGE:(page + 1) * PAGE] != content(page, count[page])
        b, page = draw(BLOCKS), draw(BLOCK)
        bad += blocks[b][page * PAGE:(page + 1) * PAGE] != content(page, ages[b])
    return bad
def write():
    page = draw(PAGES)
    count[page] += 1
    put(memory, page, count[page])
out = os.open(sys.argv[1], os.O_RDWR)
bad = turns = 0
while True:
    turns += 1
    bad += wrong(2)
    write()
    what = turns % 8
    if what == 1:
        child = os.fork()
        if child == 0:
            draw(turns)
            found = wrong(10)
            write()
            other = os.fork()
            if other == 0:
                os._exit(wrong(5) > 0)
            found += os.waitpid(other, 0)[1]
            os._exit(found > 0)
        bad += os.waitpid(child, 0)[1] != 0
    elif what == 3:
        b = draw(BLOCKS)
        blocks[b] = None
        ages[b] += BLOCKS
        blocks[b] = block(ages[b])
    elif what == 5:
        if len(memory) == PAGE * PAGES:
            memory.extend(bytes(PAGE * PAGES * 2))
        else:
            del memory[PAGE * PAGES:]
    os.pwrite(out, struct.pack("<QQQ", turns, bad, os.getpid()), 0)
`

type broodTree struct {
	*testing.T
	e      *criu.Engine
	tree   engine.Tree
	out    string
	images *os.File
}

func startBrood(t *testing.T) *broodTree {
	t.Helper()
	b := &broodTree{T: t, e: criu.New(criu.Config{}), tree: engine.Tree{Cgroup: filepath.Join(cgroups, "brood")}, out: "/run/brood"}
	must(t, os.Mkdir(b.tree.Cgroup, 0o755))
	must(t, os.WriteFile(b.out, make([]byte, 24), 0o600))
	dir, err := os.Open(b.tree.Cgroup)
	must(t, err)
	defer dir.Close()
	cmd := exec.Command("/usr/bin/python3", "-c", brood, b.out)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	must(t, cmd.Start())
	go cmd.Wait()
	b.tree.Pid = cmd.Process.Pid
	t.Cleanup(func() {
		must(t, b.e.Kill(context.Background(), b.tree))
		must(t, os.Remove(b.tree.Cgroup))
		os.Remove(b.out)
	})
	b.images, err = os.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { b.images.Close() })
	b.wantTurns(8)
	return b
}

func (b *broodTree) look() (turns, bad uint64) {
	all, err := os.ReadFile(b.out)
	must(b.T, err)
	return binary.LittleEndian.Uint64(all), binary.LittleEndian.Uint64(all[8:])
}

// wantTurns waits for so many, and fails if a page was wrong.
func (b *broodTree) wantTurns(n uint64) {
	b.Helper()
	before, _ := b.look()
	eventually(b, "it works", func() bool { now, _ := b.look(); return now >= before+n })
	if _, bad := b.look(); bad != 0 {
		b.Fatalf("%d pages were wrong", bad)
	}
}

// takeAway dumps the tree and leaves it dead.
func (b *broodTree) takeAway() copied {
	b.Helper()
	hold, err := b.e.Dump(b.Context(), engine.DumpRequest{Tree: b.tree, FinalState: migration.Dead, Images: b.images, Lazy: true})
	must(b.T, err)
	memory := copyMemory(b.T, b.tree, b.images.Name())
	_, err = hold.Commit(b.Context())
	must(b.T, err)
	return memory
}

// release restores the tree for a Filler that listens already, and lets it run as soon as that has vouched.
func (b *broodTree) release() {
	b.Helper()
	hold := b.restore()
	eventually(b, "it may run", func() bool { _, err := hold.Commit(b.Context()); return err == nil })
}

func (b *broodTree) restore() engine.Hold {
	b.Helper()
	hold, err := b.e.Restore(b.Context(), engine.RestoreRequest{Images: b.images, Cgroup: b.tree.Cgroup, Lazy: true})
	must(b.T, err)
	b.tree.Pid = hold.Pid()
	return hold
}

func (b *broodTree) wantNothing() {
	b.Helper()
	eventually(b, "nothing of it is left", func() bool {
		left, err := os.ReadFile(filepath.Join(b.tree.Cgroup, "cgroup.procs"))
		return err == nil && len(left) == 0
	})
}

func (b *broodTree) kill() error { return b.e.Kill(context.Background(), b.tree) }

// slowly paces a Fill from its progress, so that a second's work is done meanwhile, but for what is asked for.
func slowly(uint64, uint64) { time.Sleep(5 * time.Millisecond) }

func TestATreeRunsWhileItsMemoryIsFilledIn(t *testing.T) {
	if os.Getenv(fillEnv) != "" {
		fillApart(t)
		return
	}
	onHost(t, func() {
		t.Run("whatever it does to its memory", func(t *testing.T) {
			b := startBrood(t)
			b.lay(b.takeAway())
			memory := openMemory(t, b.images.Name())
			defer memory.Close()
			f, err := lazy.Listen(b.images.Name(), lazy.Config{Memory: lazy.Known(memory), Kill: b.kill})
			must(t, err)
			defer f.Close()
			type end struct {
				stats lazy.Stats
				err   error
			}
			filled := make(chan end, 1)
			go func() {
				stats, err := f.Fill(context.Background(), slowly)
				filled <- end{stats, err}
			}()
			b.release()
			b.wantTurns(9) // each thing at least once
			if len(filled) > 0 {
				t.Error("it was filled before it could do anything")
			}
			e := <-filled
			must(t, e.err)
			t.Logf("%+v", e.stats)
			if e.stats.Faults == 0 {
				t.Error("it never asked for a page")
			}
			b.wantTurns(30)
		})
		t.Run("but not when what fills it dies", func(t *testing.T) {
			b := startBrood(t)
			kill := b.fillApart(b.takeAway())
			b.release()
			b.wantTurns(3)
			kill()
			b.wantNothing()
			if _, bad := b.look(); bad != 0 {
				t.Errorf("%d pages were wrong before it was dead", bad)
			}
		})
		t.Run("nor when that dies while CRIU lets go of it", func(t *testing.T) {
			b := startBrood(t)
			kill := b.fillApart(b.takeAway())
			hold := b.restore()
			crius := running("criu")
			for _, pid := range crius {
				must(t, unix.Kill(pid, unix.SIGSTOP))
			}
			released, tries := make(chan error, 1), atomic.Int64{}
			go func() {
				for {
					if _, err := hold.Commit(context.Background()); err == nil || errors.Is(err, engine.ErrLost) {
						released <- err
						return
					}
					tries.Add(1)
				}
			}()
			eventually(t, "it is vouched for, and CRIU has been told that it may run", func() bool {
				before := tries.Load()
				<-time.After(time.Second)
				return tries.Load() == before
			})
			kill()
			for _, pid := range crius {
				unix.Kill(pid, unix.SIGCONT) // it may be dead by now
			}
			select {
			case err := <-released:
				if !errors.Is(err, engine.ErrLost) {
					t.Errorf("its release ended with: %v", err)
				}
			case <-time.After(30 * time.Second): // half of what CRIU is given to answer
				t.Error("CRIU is still waited for, though the tree is dead")
			}
			b.wantNothing()
		})
	})
}

// fillEnv makes this binary a process that fills, until it is killed: the images' directory, which has pages and index too.
const fillEnv = "DROVER_ENGINETEST_FILL"

// lay puts the memory into a file of pages with its index, in the images' directory.
func (b *broodTree) lay(memory copied) {
	b.Helper()
	pages, err := os.Create(filepath.Join(b.images.Name(), "memory"))
	must(b.T, err)
	defer pages.Close()
	index, at := lazy.Index{}, uint64(0)
	for pid, runs := range memory {
		for _, r := range runs {
			if r.Data == nil {
				index.Add(pid, lazy.Extent{Addr: r.Addr, Pages: r.Zero, Offset: lazy.Zeros})
				continue
			}
			_, err := pages.Write(r.Data)
			must(b.T, err)
			index.Add(pid, lazy.Extent{Addr: r.Addr, Pages: uint64(len(r.Data)) / image.PageSize, Offset: at})
			at += uint64(len(r.Data))
		}
	}
	f, err := os.Create(filepath.Join(b.images.Name(), "index"))
	must(b.T, err)
	must(b.T, lazy.WriteIndex(f, index))
	must(b.T, f.Close())
}

// openMemory opens what lay has laid down, from which pages go as they are filled in.
func openMemory(t *testing.T, dir string) *lazy.FileMemory {
	t.Helper()
	pages, err := os.OpenFile(filepath.Join(dir, "memory"), os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { pages.Close() })
	index, err := os.Open(filepath.Join(dir, "index"))
	must(t, err)
	defer index.Close()
	memory, err := lazy.OpenMemory(lazy.Files{Pages: pages, Index: index})
	must(t, err)
	return memory
}

// fillApart starts such a process and returns when it listens.
func (b *broodTree) fillApart(memory copied) (kill func()) {
	b.Helper()
	b.lay(memory)
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestATreeRunsWhileItsMemoryIsFilledIn$")
	cmd.Env = append(os.Environ(), fillEnv+"="+b.images.Name())
	out, err := cmd.StdoutPipe()
	must(b.T, err)
	must(b.T, cmd.Start())
	said := make([]byte, 7)
	if _, err := io.ReadFull(out, said); err != nil || string(said) != "listens" {
		b.Fatalf("what fills said %q, %v", said, err)
	}
	return func() {
		must(b.T, cmd.Process.Kill())
		cmd.Wait()
	}
}

func fillApart(t *testing.T) {
	dir := os.Getenv(fillEnv)
	f, err := lazy.Listen(dir, lazy.Config{Memory: lazy.Known(openMemory(t, dir)), Kill: func() error { return nil }})
	must(t, err)
	fmt.Print("listens")
	_, err = f.Fill(context.Background(), slowly)
	must(t, err)
	select {} // until it is killed
}
