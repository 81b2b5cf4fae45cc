package keeper

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

// model is an engine whose dumps and restores succeed at once.
type model struct {
	mu     sync.Mutex
	holds  []*modelHold
	frozen chan struct{} // closed when a dump waits at its freeze for ctx, if wait is set
	wait   bool
	goOn   chan struct{} // a dump closes frozen and waits for it, whatever becomes of ctx; nil for none
	lazy   []bool        // of each dump and restore, in order
	full   error         // what commits fail with
}

func (m *model) Probe(context.Context) (engine.Features, error) {
	return engine.Features{Engine: "model", Version: "1"}, nil
}
func (m *model) PreDump(context.Context, engine.PreDumpRequest) (engine.Stats, error) {
	return engine.Stats{}, engine.ErrNoTracking
}
func (m *model) Dump(ctx context.Context, r engine.DumpRequest) (engine.Hold, error) {
	m.asked(r.Lazy)
	if m.wait {
		close(m.frozen)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if m.goOn != nil {
		close(m.frozen)
		<-m.goOn
	}
	if r.AtFreeze != nil {
		if err := r.AtFreeze(ctx); err != nil {
			return nil, err
		}
	}
	if r.Pages != nil {
		if _, err := r.Pages.WriteString("pages"); err != nil {
			return nil, err
		}
	}
	info, err := r.Images.Stat()
	if err != nil || !info.IsDir() {
		return nil, errors.New("the images are no directory")
	}
	return m.held(r.Tree.Pid), nil
}
func (m *model) Restore(_ context.Context, r engine.RestoreRequest) (engine.Hold, error) {
	m.asked(r.Lazy)
	if len(r.Inherit) == 0 {
		return m.held(os.Getpid()), nil
	}
	b, err := io.ReadAll(r.Inherit["net"])
	if err != nil {
		return nil, err
	}
	if string(b) != "namespace" {
		return nil, errors.New("the namespace's file said " + string(b))
	}
	return m.held(os.Getpid()), nil
}
func (m *model) Kill(context.Context, engine.Tree) error { return nil }
func (m *model) Continue(_ context.Context, t engine.Tree, keep []int) error {
	return errs.New(errs.Refused, "%d keeps %v", t.Pid, keep).WithNext("do this")
}

func (m *model) asked(lazy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lazy = append(m.lazy, lazy)
}

func (m *model) made() []*modelHold {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holds
}

func (m *model) held(pid int) engine.Hold {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := &modelHold{pid: pid, lost: make(chan struct{}), refuse: m.full}
	m.holds = append(m.holds, h)
	return h
}

type modelHold struct {
	pid     int
	lost    chan struct{}
	refuse  error
	mu      sync.Mutex
	verdict migration.Verdict
}

func (h *modelHold) Pid() int              { return h.pid }
func (h *modelHold) Stats() engine.Stats   { return engine.Stats{Frozen: 5} }
func (h *modelHold) Lost() <-chan struct{} { return h.lost }
func (h *modelHold) Commit(context.Context) (engine.Stats, error) {
	if h.refuse != nil {
		return engine.Stats{}, h.refuse
	}
	return engine.Stats{Frozen: 6}, h.decide(migration.Commit)
}
func (h *modelHold) Abort(context.Context) error { return h.decide(migration.Abort) }
func (h *modelHold) decided() migration.Verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.verdict
}

func (h *modelHold) decide(v migration.Verdict) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.verdict != "" && h.verdict != v {
		return engine.ErrDecided
	}
	h.verdict = v
	return nil
}

// serving is a keeper with that engine in this process, and a client of it.
func serving(t *testing.T, m *model) (*keeper, *Client) {
	t.Helper()
	dir := Dir(filepath.Join(t.TempDir(), strings.Repeat("a-long-name/", 12))) // longer than a socket's path may be
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(dir.config(), Config{Workload: "w", Cgroup: "/nonexistent/cgroup"}); err != nil {
		t.Fatal(err)
	}
	was := newEngine
	newEngine = func(Config, *slog.Logger) engine.Engine { return m }
	defer func() { newEngine = was }()
	k, l, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	k.log = slog.New(slog.DiscardHandler)
	ended := make(chan int)
	go func() { ended <- k.serve(l) }()
	t.Cleanup(func() {
		k.once.Do(func() { close(k.quit) })
		if code := <-ended; code != 0 {
			t.Errorf("the keeper ended with %d", code)
		}
		k.lock.Close()
	})
	return k, &Client{Dir: dir}
}

func images(t *testing.T) *os.File {
	t.Helper()
	d, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
