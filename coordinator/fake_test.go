package coordinator

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// world is all hosts of a test and what must never happen on them.
type world struct {
	t       *testing.T
	mu      sync.Mutex
	hosts   map[string]*fakeWorker
	running map[string]string // workload → the host on which its code runs
	died    map[string]string // workload → the host on which a signal ended it
	faults  []*fault
	twice   bool     // every call is delivered twice
	history []string // verdicts and runs, in order
	changed chan struct{}
}

// fault makes calls fail: before they act (the request was lost) or after (the reply was).
type fault struct {
	host, call string
	after      bool
	times      int
	err        error
	then       func() // called when it strikes, without any lock
}

func newWorld(t *testing.T) *world {
	return &world{t: t, hosts: map[string]*fakeWorker{}, running: map[string]string{}, died: map[string]string{}, changed: make(chan struct{})}
}

func (w *world) host(name string) *fakeWorker {
	h := &fakeWorker{
		world: w, name: name, address: name + ":7202", boot: "boot-1-" + name,
		sessions: map[migration.ID]*fakeSession{}, trees: map[string]*fakeTree{}, copyFor: 200 * time.Millisecond, restoreFor: 30 * time.Millisecond,
	}
	w.hosts[name] = h
	return h
}

func (w *world) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// run says that a workload's code runs on a host from now on; that it runs on another one too is what drover must never do.
func (w *world) run(name, host string) {
	if on := w.running[name]; on != "" && on != host {
		w.t.Errorf("%s runs on %s and on %s", name, on, host)
	}
	w.running[name] = host
	w.history = append(w.history, "run "+name+" on "+host)
}

func (w *world) halt(name, host string) {
	if w.running[name] == host {
		w.running[name] = ""
	}
}

func (w *world) runsOn(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running[name]
}

// fail adds a fault.
func (w *world) fail(f fault) *fault {
	if f.times == 0 {
		f.times = 1
	}
	if f.err == nil {
		f.err = errs.New(errs.Unavailable, "the wire broke at %s", f.call)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, &f)
	return &f
}

// strike is the error of the fault that hits this call, nil if none does.
func (w *world) strike(host, call string, after bool) error {
	w.mu.Lock()
	var hit *fault
	for _, f := range w.faults {
		if f.host == host && f.call == call && f.after == after && f.times > 0 {
			f.times--
			hit = f
			break
		}
	}
	w.mu.Unlock()
	if hit == nil {
		return nil
	}
	if hit.then != nil {
		hit.then()
	}
	return hit.err
}

// fakeTree is a workload on a host.
type fakeTree struct {
	spec  workload.Spec
	epoch migration.Epoch
	state workload.State
}

// fakeSession is one migration on one host.
type fakeSession struct {
	state  workerapi.SessionState
	req    workerapi.OpenRequest
	events []workerapi.Event
	frozen time.Time
}

// fakeWorker is a host whose trees are words. It keeps the worker's contract, and every call can be made to fail.
type fakeWorker struct {
	world      *world
	name       string
	address    string
	boot       string
	sessions   map[migration.ID]*fakeSession
	trees      map[string]*fakeTree
	findings   []workerapi.Finding // of Judge
	copyFor    time.Duration
	restoreFor time.Duration
	failAt     workerapi.Step // as a target: the session fails instead of reaching it
	quiet      bool           // sends no heartbeats
	bandwidth  int64          // as the last heartbeat's answer said
	forget     []string       // likewise
	kept       []workerapi.Kept
	stop       func()
	calls      []string
}

var _ workerapi.Worker = (*fakeWorker)(nil)

// call runs f with the world locked, between the faults.
func call[T any](h *fakeWorker, name string, f func() (T, error)) (T, error) {
	var none T
	if err := h.world.strike(h.name, name, false); err != nil {
		return none, err
	}
	h.world.mu.Lock()
	h.calls = append(h.calls, name)
	out, err := f()
	if h.world.twice {
		out, err = f()
	}
	h.world.wake()
	h.world.mu.Unlock()
	if err != nil {
		return none, err
	}
	if err := h.world.strike(h.name, name, true); err != nil {
		return none, err
	}
	return out, nil
}

func (h *fakeWorker) facts() workerapi.HostFacts {
	f := workerapi.HostFacts{Name: h.name, Address: h.address, Boot: h.boot, CPUs: 2, MemoryTotal: 8 << 30, MemoryFree: 6 << 30, DiskFree: 1 << 40}
	f.Engine.Version, f.Kept = "4.2.1", h.kept
	return f
}

func (h *fakeWorker) Host(context.Context) (workerapi.HostFacts, error) {
	return call(h, "Host", func() (workerapi.HostFacts, error) { return h.facts(), nil })
}

func (h *fakeWorker) statuses() []workload.Status {
	out := []workload.Status{}
	for name, t := range h.trees {
		out = append(out, workload.Status{Name: name, Spec: t.spec, Epoch: t.epoch, State: t.state})
	}
	return out
}

func (h *fakeWorker) Workloads(context.Context) ([]workload.Status, error) {
	return call(h, "Workloads", func() ([]workload.Status, error) { return h.statuses(), nil })
}

func (h *fakeWorker) status(name string) workload.Status {
	t := h.trees[name]
	return workload.Status{Name: name, Spec: t.spec, Epoch: t.epoch, State: t.state}
}

func (h *fakeWorker) tree(name string) (*fakeTree, error) {
	t, ok := h.trees[name]
	if !ok {
		return nil, errs.New(errs.NotFound, "%s has no %s", h.name, name)
	}
	return t, nil
}

func (h *fakeWorker) Start(_ context.Context, spec workload.Spec, epoch migration.Epoch) (workload.Status, error) {
	return call(h, "Start", func() (workload.Status, error) {
		h.trees[spec.Name] = &fakeTree{spec, epoch, workload.Running}
		h.world.run(spec.Name, h.name)
		return h.status(spec.Name), nil
	})
}

func (h *fakeWorker) Stop(_ context.Context, name string, _ int, _ time.Duration) (workload.Status, error) {
	return call(h, "Stop", func() (workload.Status, error) {
		t, err := h.tree(name)
		if err != nil {
			return workload.Status{}, err
		}
		t.state = workload.Exited
		h.world.halt(name, h.name)
		return h.status(name), nil
	})
}

func (h *fakeWorker) Remove(_ context.Context, name string, force bool) error {
	_, err := call(h, "Remove", func() (int, error) {
		t, err := h.tree(name)
		if err != nil {
			return 0, err
		}
		if t.state != workload.Exited && !force {
			return 0, errs.New(errs.Conflict, "%s lives", name)
		}
		h.world.halt(name, h.name)
		delete(h.trees, name)
		return 0, nil
	})
	return err
}

func (h *fakeWorker) RemoveCopy(_ context.Context, name string, epoch migration.Epoch) error {
	_, err := call(h, "RemoveCopy", func() (int, error) {
		t, err := h.tree(name)
		if err != nil {
			return 0, err
		}
		if t.state != workload.Fenced && t.state != workload.Exited && t.epoch >= epoch || t.epoch > epoch {
			return 0, errs.New(errs.Conflict, "%s is no copy", name)
		}
		h.world.halt(name, h.name)
		delete(h.trees, name)
		return 0, nil
	})
	return err
}

func (h *fakeWorker) Continue(_ context.Context, name string, epoch migration.Epoch) (workload.Status, error) {
	return call(h, "Continue", func() (workload.Status, error) {
		t, err := h.tree(name)
		if err != nil {
			return workload.Status{}, err
		}
		if t.state == workload.Exited || epoch < t.epoch {
			return workload.Status{}, errs.New(errs.Conflict, "%s is %s at epoch %d", name, t.state, t.epoch)
		}
		if t.state == workload.Fenced && epoch == t.epoch {
			return workload.Status{}, errs.New(errs.Refused, "%s lives elsewhere", name)
		}
		t.state, t.epoch = workload.Running, epoch
		h.world.run(name, h.name)
		return h.status(name), nil
	})
}

func (h *fakeWorker) Logs(_ context.Context, name string, _ workerapi.LogOptions, w io.Writer) error {
	_, err := fmt.Fprintf(w, "output of %s on %s\n", name, h.name)
	return err
}

func (h *fakeWorker) Checkpoint(_ context.Context, name, dir string, final migration.FinalState) (workerapi.CheckpointReport, error) {
	return call(h, "Checkpoint", func() (workerapi.CheckpointReport, error) {
		t, err := h.tree(name)
		if err == nil && final == migration.Dead {
			t.state = workload.Exited
			h.world.halt(name, h.name)
		}
		return workerapi.CheckpointReport{Dir: dir, Final: final}, err
	})
}

func (h *fakeWorker) Restore(_ context.Context, name, _ string, _ migration.FinalState, epoch migration.Epoch) (workload.Status, error) {
	return call(h, "Restore", func() (workload.Status, error) {
		h.trees[name] = &fakeTree{workload.Spec{Name: name, Kind: workload.Run, Command: []string{"restored"}}, epoch, workload.Running}
		h.world.run(name, h.name)
		return h.status(name), nil
	})
}

func (h *fakeWorker) Inspect(_ context.Context, name string) (workerapi.Inventory, error) {
	return call(h, "Inspect", func() (workerapi.Inventory, error) {
		t, err := h.tree(name)
		if err != nil {
			return workerapi.Inventory{}, err
		}
		return workerapi.Inventory{Workload: name, Host: h.name, Spec: t.spec, Epoch: t.epoch, Engine: h.facts().Engine}, nil
	})
}

func (h *fakeWorker) Judge(context.Context, workerapi.Inventory) ([]workerapi.Finding, error) {
	return call(h, "Judge", func() ([]workerapi.Finding, error) { return h.findings, nil })
}

func (h *fakeWorker) SetBandwidth(_ context.Context, id migration.ID, n int64) error {
	_, err := call(h, fmt.Sprintf("SetBandwidth %d", n), func() (int, error) {
		s, err := h.session(id)
		if err == nil {
			s.state.Progress.Bandwidth = n
			h.step(s, s.state.Step)
		}
		return 0, err
	})
	return err
}

func (h *fakeWorker) Session(_ context.Context, id migration.ID) (workerapi.SessionState, error) {
	return call(h, "Session", func() (workerapi.SessionState, error) {
		s, err := h.session(id)
		if err != nil {
			return workerapi.SessionState{}, err
		}
		return s.now(), nil
	})
}

func (h *fakeWorker) session(id migration.ID) (*fakeSession, error) {
	s, ok := h.sessions[id]
	if !ok {
		return nil, errs.New(errs.NotFound, "%s has no session of %s", h.name, id)
	}
	return s, nil
}

func (s *fakeSession) now() workerapi.SessionState {
	st := s.state
	if !s.frozen.IsZero() {
		st.FrozenAt, st.FrozenFor = s.frozen, time.Since(s.frozen)+time.Microsecond
	}
	return st
}

// step moves a session and tells who watches; the world is locked.
func (h *fakeWorker) step(s *fakeSession, to workerapi.Step) {
	s.state.Step = to
	s.events = append(s.events, workerapi.Event{Seq: uint64(len(s.events) + 1), Time: time.Now(), Host: h.name, State: s.now()})
	h.world.wake()
}

func (h *fakeWorker) Watch(ctx context.Context, id migration.ID, after uint64, f func(workerapi.Event) error) error {
	for {
		h.world.mu.Lock()
		s, err := h.session(id)
		if err != nil {
			h.world.mu.Unlock()
			return err
		}
		news := slices.Clone(s.events[min(int(after), len(s.events)):])
		over := s.state.Step == workerapi.StepDone || s.state.Step == workerapi.StepUndone
		changed := h.world.changed
		h.world.mu.Unlock()
		for _, e := range news {
			if err := f(e); err != nil {
				return err
			}
			after = e.Seq
		}
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
