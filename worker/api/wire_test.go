package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/worker/api"
)

// recorder is a Worker that remembers the last call with its arguments and answers with fixed values or err.
type recorder struct {
	api.Worker
	call string
	args []any
	err  error
}

func (r *recorder) saw(call string, args ...any) error { r.call, r.args = call, args; return r.err }

func (r *recorder) Host(context.Context) (api.HostFacts, error) {
	return api.HostFacts{Name: "alpha"}, r.saw("Host")
}
func (r *recorder) Workloads(context.Context) ([]workload.Status, error) {
	return []workload.Status{{Name: "redis-7"}}, r.saw("Workloads")
}
func (r *recorder) Start(_ context.Context, s workload.Spec, e migration.Epoch) (workload.Status, error) {
	return workload.Status{Name: s.Name}, r.saw("Start", s.Name, e)
}
func (r *recorder) Stop(_ context.Context, name string, sig int, grace time.Duration) (workload.Status, error) {
	return workload.Status{Name: name}, r.saw("Stop", name, sig, grace)
}
func (r *recorder) Remove(_ context.Context, name string, force bool) error {
	return r.saw("Remove", name, force)
}
func (r *recorder) RemoveCopy(_ context.Context, name string, e migration.Epoch) error {
	return r.saw("RemoveCopy", name, e)
}
func (r *recorder) Continue(_ context.Context, name string, e migration.Epoch) (workload.Status, error) {
	return workload.Status{Name: name}, r.saw("Continue", name, e)
}
func (r *recorder) Checkpoint(_ context.Context, name, dir string, f migration.FinalState) (api.CheckpointReport, error) {
	return api.CheckpointReport{Dir: dir}, r.saw("Checkpoint", name, dir, f)
}
func (r *recorder) Restore(_ context.Context, name, dir string, f migration.FinalState, e migration.Epoch) (workload.Status, error) {
	return workload.Status{Name: name}, r.saw("Restore", name, dir, f, e)
}
func (r *recorder) Inspect(_ context.Context, name string) (api.Inventory, error) {
	return api.Inventory{Workload: name}, r.saw("Inspect", name)
}
func (r *recorder) Judge(_ context.Context, inv api.Inventory) ([]api.Finding, error) {
	return []api.Finding{{Check: "cpu"}}, r.saw("Judge", inv.Workload)
}
func (r *recorder) Open(_ context.Context, req api.OpenRequest) (api.SessionState, error) {
	return api.SessionState{Migration: req.Migration}, r.saw("Open", req.Migration, req.Role, req.Epoch)
}
func (r *recorder) Session(_ context.Context, id migration.ID) (api.SessionState, error) {
	return api.SessionState{Migration: id}, r.saw("Session", id)
}
func (r *recorder) CutOver(_ context.Context, id migration.ID, e migration.Epoch) error {
	return r.saw("CutOver", id, e)
}
func (r *recorder) Decide(_ context.Context, id migration.ID, v migration.Verdict, e migration.Epoch) (api.SessionState, error) {
	return api.SessionState{Migration: id, Verdict: v}, r.saw("Decide", id, v, e)
}
func (r *recorder) Confirm(_ context.Context, id migration.ID, e migration.Epoch) (api.SessionState, error) {
	return api.SessionState{Migration: id}, r.saw("Confirm", id, e)
}
func (r *recorder) SetBandwidth(_ context.Context, id migration.ID, b int64) error {
	return r.saw("SetBandwidth", id, b)
}
func (r *recorder) Logs(_ context.Context, name string, o api.LogOptions, w io.Writer) error {
	err := r.saw("Logs", name, o)
	if err == nil {
		_, err = io.WriteString(w, "ready\n")
	}
	return err
}
func (r *recorder) Watch(_ context.Context, id migration.ID, after uint64, f func(api.Event) error) error {
	for seq := after + 1; seq < after+4; seq++ {
		if err := f(api.Event{Seq: seq}); err != nil {
			return err
		}
	}
	return r.saw("Watch", id, after)
}

func dial(t *testing.T, w api.Worker) api.Worker {
	t.Helper()
	s := httptest.NewServer(api.NewHandler(w))
	t.Cleanup(s.Close)
	return api.NewClient(&http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}}})
}

// calls are all calls of the interface, each with what the worker at the other end must see.
var calls = []struct {
	name string
	do   func(context.Context, api.Worker) error
	args []any
}{
	{"Host", func(ctx context.Context, w api.Worker) error { _, err := w.Host(ctx); return err }, nil},
	{"Workloads", func(ctx context.Context, w api.Worker) error { _, err := w.Workloads(ctx); return err }, nil},
	{"Start", func(ctx context.Context, w api.Worker) error {
		_, err := w.Start(ctx, workload.Spec{Name: "redis-7", Kind: workload.Run, Command: []string{"redis-server"}}, 3)
		return err
	}, []any{"redis-7", migration.Epoch(3)}},
	{"Stop", func(ctx context.Context, w api.Worker) error {
		_, err := w.Stop(ctx, "redis-7", 15, time.Second)
		return err
	},
		[]any{"redis-7", 15, time.Second}},
	{"Remove", func(ctx context.Context, w api.Worker) error { return w.Remove(ctx, "redis-7", true) }, []any{"redis-7", true}},
	{"RemoveCopy", func(ctx context.Context, w api.Worker) error { return w.RemoveCopy(ctx, "redis-7", 4) }, []any{"redis-7", migration.Epoch(4)}},
	{"Continue", func(ctx context.Context, w api.Worker) error { _, err := w.Continue(ctx, "redis-7", 4); return err }, []any{"redis-7", migration.Epoch(4)}},
	{"Checkpoint", func(ctx context.Context, w api.Worker) error {
		_, err := w.Checkpoint(ctx, "redis-7", "/srv/c", migration.Stopped)
		return err
	}, []any{"redis-7", "/srv/c", migration.Stopped}},
	{"Restore", func(ctx context.Context, w api.Worker) error {
		_, err := w.Restore(ctx, "redis-7", "/srv/c", migration.Running, 4)
		return err
	}, []any{"redis-7", "/srv/c", migration.Running, migration.Epoch(4)}},
	{"Inspect", func(ctx context.Context, w api.Worker) error { _, err := w.Inspect(ctx, "redis-7"); return err }, []any{"redis-7"}},
	{"Judge", func(ctx context.Context, w api.Worker) error {
		_, err := w.Judge(ctx, api.Inventory{Workload: "redis-7"})
		return err
	}, []any{"redis-7"}},
	{"Open", func(ctx context.Context, w api.Worker) error {
		_, err := w.Open(ctx, api.OpenRequest{Migration: "m-1", Role: migration.Target, Epoch: 2})
		return err
	}, []any{migration.ID("m-1"), migration.Target, migration.Epoch(2)}},
	{"Session", func(ctx context.Context, w api.Worker) error { _, err := w.Session(ctx, "m-1"); return err }, []any{migration.ID("m-1")}},
	{"Watch", func(ctx context.Context, w api.Worker) error {
		return w.Watch(ctx, "m-1", 7, func(api.Event) error { return nil })
	}, []any{migration.ID("m-1"), uint64(7)}},
	{"CutOver", func(ctx context.Context, w api.Worker) error { return w.CutOver(ctx, "m-1", 2) }, []any{migration.ID("m-1"), migration.Epoch(2)}},
	{"Decide", func(ctx context.Context, w api.Worker) error {
		_, err := w.Decide(ctx, "m-1", migration.Commit, 3)
		return err
	}, []any{migration.ID("m-1"), migration.Commit, migration.Epoch(3)}},
	{"Confirm", func(ctx context.Context, w api.Worker) error { _, err := w.Confirm(ctx, "m-1", 3); return err }, []any{migration.ID("m-1"), migration.Epoch(3)}},
	{"SetBandwidth", func(ctx context.Context, w api.Worker) error { return w.SetBandwidth(ctx, "m-1", 1e6) }, []any{migration.ID("m-1"), int64(1e6)}},
	{"Logs", func(ctx context.Context, w api.Worker) error {
		return w.Logs(ctx, "redis-7", api.LogOptions{Tail: 5, Follow: true}, io.Discard)
	}, []any{"redis-7", api.LogOptions{Tail: 5, Follow: true}}},
}

func TestEveryCallArrivesWithItsArguments(t *testing.T) {
	if want := reflect.TypeFor[api.Worker]().NumMethod(); len(calls) != want {
		t.Fatalf("the table has %d calls, the interface %d", len(calls), want)
	}
	for _, c := range calls {
		there := &recorder{}
		if err := c.do(t.Context(), dial(t, there)); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if there.call != c.name || !reflect.DeepEqual(there.args, c.args) {
			t.Errorf("%s arrived as %s%v, want %v", c.name, there.call, there.args, c.args)
		}
	}
}

func TestEveryCallBringsItsErrorBack(t *testing.T) {
	for _, c := range calls {
		err := c.do(t.Context(), dial(t, &recorder{err: errs.New(errs.Conflict, "epoch e2 is older than e3").WithNext("look again")}))
		if errs.KindOf(err) != errs.Conflict || errs.NextOf(err) != "look again" || err.Error() != "epoch e2 is older than e3" {
			t.Errorf("%s: got %v (%v, %q)", c.name, err, errs.KindOf(err), errs.NextOf(err))
		}
	}
}

func TestNamesThatClimbNeverReachTheWorker(t *testing.T) {
	for _, name := range []string{"../etc", "a/b", "", "Redis"} {
		there := &recorder{}
		w := dial(t, there)
		for what, err := range map[string]error{
			"remove":  w.Remove(t.Context(), name, true),
			"logs":    w.Logs(t.Context(), name, api.LogOptions{}, io.Discard),
			"cutover": w.CutOver(t.Context(), migration.ID(name), 1),
			"watch":   w.Watch(t.Context(), migration.ID(name), 0, func(api.Event) error { return nil }),
		} {
			if err == nil {
				t.Errorf("%s of %q was answered", what, name)
			}
		}
		if there.call != "" {
			t.Errorf("%q reached the worker's %s", name, there.call)
		}
	}
}

func TestWatchStopsWhenItsCallerHasSeenEnough(t *testing.T) {
	enough := errors.New("enough")
	var seen []uint64
	err := dial(t, &recorder{}).Watch(t.Context(), "m-1", 4, func(e api.Event) error {
		seen = append(seen, e.Seq)
		if len(seen) == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || !reflect.DeepEqual(seen, []uint64{5, 6}) {
		t.Errorf("saw %v, ended with %v", seen, err)
	}
}

func TestOutputThatBreaksOffIsNotTakenForWhole(t *testing.T) {
	var got strings.Builder
	err := dial(t, breaksOff{}).Logs(t.Context(), "redis-7", api.LogOptions{}, &got)
	if got.String() != "half" || errs.KindOf(err) != errs.Unavailable {
		t.Errorf("got %q and %v", got.String(), err)
	}
}

type breaksOff struct{ api.Worker }

func (breaksOff) Logs(_ context.Context, _ string, _ api.LogOptions, w io.Writer) error {
	io.WriteString(w, "half")
	return errors.New("disk failed")
}
