package sessiontest

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"drover/engine"
	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
)

// model is the engine of one workload's keeper on one host.
type model struct{ place *place }

func (m model) Probe(context.Context) (engine.Features, error) {
	return engine.Features{Engine: "model", Version: "1", Kernel: "none"}, nil
}

func (m model) PreDump(context.Context, engine.PreDumpRequest) (engine.Stats, error) {
	return engine.Stats{}, engine.ErrNoTracking
}

func (m model) Kill(_ context.Context, t engine.Tree) error {
	if err := m.place.step("kill"); err != nil {
		return err
	}
	if c := m.place.copy(); c != nil {
		c.Kill(9)
	}
	return nil
}

func (m model) Continue(context.Context, engine.Tree, []int) error {
	m.place.copy().set(Running)
	return nil
}

func (m model) Dump(ctx context.Context, req engine.DumpRequest) (engine.Hold, error) {
	c := m.place.copy()
	if c == nil || c.State() == Dead {
		return nil, engine.ErrGone
	}
	if err := m.place.step("dump"); err != nil {
		return nil, err
	}
	c.set(Frozen)
	begun := time.Now()
	err := func() error {
		if req.AtFreeze != nil {
			if err := req.AtFreeze(ctx); err != nil {
				return err
			}
		}
		send := func() error { return sendPages(req.Pages, c.Memory()) }
		if req.Lazy {
			send = func() error { return leaveOut(inDir(req.Images), c.Memory()) }
		}
		if err := send(); err != nil {
			return err
		}
		if err := m.place.step("dump-end"); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(inDir(req.Images), "core.img"), []byte(c.Workload), 0o600)
	}()
	if err != nil {
		c.set(Running)
		return nil, err
	}
	final := map[migration.FinalState]State{"": Dead, migration.Dead: Dead, migration.Stopped: Stopped, migration.Running: Running}[req.FinalState]
	return m.place.keep(&hold{place: m.place, copy: c, commit: final, abort: Running, stats: engine.Stats{Frozen: time.Since(begun)}}), nil
}

// sendPages is CRIU's side of the page-server protocol.
func sendPages(w *os.File, memory map[image.Space]map[uint64][]byte) error {
	out := image.SendPages(w)
	for _, s := range slices.SortedFunc(maps.Keys(memory), func(a, b image.Space) int { return int(a.ID) - int(b.ID) }) {
		if err := out.Open(s); err != nil {
			return err
		}
		for _, addr := range slices.Sorted(maps.Keys(memory[s])) {
			if err := out.Run(addr, 0, memory[s][addr]); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

func (m model) Restore(ctx context.Context, req engine.RestoreRequest) (engine.Hold, error) {
	if err := m.place.step("ready"); err != nil {
		return nil, err
	}
	if req.AtReady != nil {
		var err error
		if req.Lazy, err = req.AtReady(ctx); err != nil {
			return nil, err
		}
	}
	if err := m.place.step("restore"); err != nil {
		return nil, err
	}
	dir := inDir(req.Images)
	name, err := os.ReadFile(filepath.Join(dir, "core.img"))
	if err != nil || string(name) != m.place.name {
		return nil, errs.New(errs.Failed, "restore %s: %w", m.place.name, engine.ErrBadImage)
	}
	memory, err := readPages(dir)
	if err != nil {
		return nil, err
	}
	c := m.place.host.world.born(m.place.name, m.place.host.name, Frozen)
	c.memory = memory
	c.fenced = true
	m.place.put(c)
	m.place.mu.Lock()
	f := m.place.filler
	m.place.mu.Unlock()
	if req.Lazy {
		if err := f.serve(m.place, c); err != nil {
			return nil, err
		}
	}
	final := Running
	if req.FinalState == migration.Stopped {
		final = Stopped
	}
	return m.place.keep(&hold{place: m.place, copy: c, commit: final, abort: Dead}), nil
}

func inDir(dir *os.File) string { return filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd()))) }

// readPages reads the images of a directory back by what the pagemaps say.
func readPages(dir string) (map[image.Space]map[uint64][]byte, error) {
	out := map[image.Space]map[uint64][]byte{}
	names, err := filepath.Glob(filepath.Join(dir, "pagemap-*.img"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		s, pages, err := readPagemap(dir, name)
		if err != nil {
			return nil, err
		}
		out[s] = pages
	}
	return out, nil
}

// hold is what a keeper holds; it outlives whoever asked for it.
type hold struct {
	place         *place
	copy          *Copy
	commit, abort State
	stats         engine.Stats

	mu   sync.Mutex
	how  string // "", "commit", "abort"
	lost bool
	gone chan struct{}
}

func (h *hold) Pid() int              { return h.copy.Pid }
func (h *hold) Stats() engine.Stats   { return h.stats }
func (h *hold) Lost() <-chan struct{} { return h.gone }

func (h *hold) Commit(context.Context) (engine.Stats, error) {
	return h.stats, h.end("commit", h.commit)
}

func (h *hold) Abort(context.Context) error { return h.end("abort", h.abort) }

func (h *hold) end(how string, to State) error {
	if err := h.place.step("hold-" + how); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.how == how:
		return nil
	case h.how != "":
		return engine.ErrDecided
	case h.lost && how == "commit":
		return engine.ErrLost
	}
	h.how = how
	if h.copy.State() != Dead {
		h.copy.set(to)
	}
	return nil
}

// Lose kills the engine's process that holds: the tree stays as it is.
func (h *hold) lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.lost && h.how == "" {
		h.lost = true
		close(h.gone)
	}
}
