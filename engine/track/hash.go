package track

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/internal/proc"
)

// maxRun is the longest run emitted, in pages.
const maxRun = 256

// NewHash makes the tracker that works on any kernel: it reads every page of the tree in every round and hands over those
// whose hash changed. It keeps 16 bytes a page and reads some GB a second on one core; nothing is done to the tree.
func NewHash(t engine.Tree) Tracker { return &hashTracker{tree: t, hasher: newHasher()} }

type hashTracker struct {
	tree   engine.Tree
	hasher *hasher
}

func (h *hashTracker) Name() string { return "hash" }

func (h *hashTracker) Parent() string { return "" }

func (h *hashTracker) Close() error {
	h.hasher = nil
	return nil
}

func (h *hashTracker) Round(ctx context.Context, emit func(image.Space, uint64, []byte) error) (RoundStats, error) {
	st := RoundStats{Tracker: h.Name()}
	begin := time.Now()
	out := &outlet{emit: emit}
	pass := h.hasher.pass(out.hand, &st)
	shared := objects{}
	pids := proc.OfTree(h.tree)
	for _, pid := range pids {
		err := hashProcess(ctx, pid, pass, shared)
		switch {
		case out.failed != nil:
			return st, out.failed
		case gone(err):
			continue // it ended meanwhile; its pages are needed no more
		case err != nil:
			return st, fmt.Errorf("read memory of pid %d: %w", pid, err)
		}
		st.Processes++
	}
	if st.Processes == 0 && !slices.ContainsFunc(append(pids, h.tree.Pid), alive) { // in the middle of execve(2) a cgroup may list nothing
		return st, fmt.Errorf("track pid %d: %w", h.tree.Pid, engine.ErrGone)
	}
	if err := shared.hash(ctx, pass); err != nil {
		return st, fmt.Errorf("read shared memory: %w", err)
	}
	st.Gone = pass.end()
	st.Took = time.Since(begin)
	return st, nil
}

// hashProcess reads all of a process's own memory, and adds to shared what it shares.
func hashProcess(ctx context.Context, pid int, pass *pass, shared objects) error {
	p, err := openProcess(pid)
	if err != nil {
		return err
	}
	defer p.close()
	maps, err := p.maps()
	if err != nil {
		return err
	}
	if len(maps) == 0 {
		return unix.ESRCH // it has ended and only its parent has not heard of it
	}
	shared.add(pid, maps)
	pass.stats.Mappings += uint64(len(maps))
	pass.begin(image.Space{Kind: image.Process, ID: uint64(proc.InnerPid(pid))})
	for _, m := range maps {
		if !m.private() || m.kernels() {
			continue
		}
		err := p.populated(m, func(start, end uint64) error {
			return pass.read(ctx, start, end, p.read)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// outlet keeps the receiver's error apart from those of processes.
type outlet struct {
	emit   func(image.Space, uint64, []byte) error
	failed error
}

func (o *outlet) hand(sp image.Space, addr uint64, data []byte) error {
	o.failed = o.emit(sp, addr, data)
	return o.failed
}

// alive says whether a process has not ended. In the middle of execve(2) it may have no memory to look at, and for a moment no thread but
// a zombie: so it is given some time to be seen alive.
func alive(pid int) bool {
	for range 20 {
		if runs(pid) {
			return true
		}
		if pid <= 0 || unix.Kill(pid, 0) != nil {
			return false
		}
		<-time.After(5 * time.Millisecond)
	}
	return false
}

// runs says whether a process is seen to have a thread that has not ended.
func runs(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	return slices.ContainsFunc(tasks, func(file string) bool {
		b, err := os.ReadFile(file)
		_, state, _ := strings.Cut(string(b), ") ")
		return err == nil && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
	})
}

// gone says whether an error means that a process has ended.
func gone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrProcessDone)
}
