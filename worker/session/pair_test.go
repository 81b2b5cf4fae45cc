package session_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/pki"
	"drover/internal/workload"
	"drover/transfer/transfertest"
	workerapi "drover/worker/api"
	"drover/worker/journal"
	"drover/worker/pace"
	"drover/worker/session"
	"drover/worker/session/sessiontest"
)

const (
	name = "redis-7"
	id   = migration.ID("m-1")
	at   = migration.Epoch(5)
)

// pair is a source and a target host with a session registry each, joined in memory. It plays the coordinator.
type pair struct {
	t       *testing.T
	world   *sessiontest.World
	alpha   *sessiontest.Host // source
	beta    *sessiontest.Host // target
	tree    *sessiontest.Copy
	dirs    map[string]string
	logs    map[string]*journal.Journal
	source  *session.Registry
	target  *session.Registry
	mu      sync.Mutex // guards source and target where channels are served
	network *transfertest.Network
	id      migration.ID
	opts    workerapi.MoveOptions
	free    atomic.Int64   // memory, of each host
	stores  session.Stores // beta's
	boot    string         // that requests name; the hosts' is "now"
	lazy    bool           // the engines can leave the memory out
	still   time.Duration  // see session.Config.StillFor
	nice    *pace.Nice     // of copying
	images  string         // where hosts look for images; "" is where they are
}

func newPair(t *testing.T) *pair {
	t.Helper()
	return newPairWith(t, session.Stores{})
}

func newPairWith(t *testing.T, stores session.Stores) *pair {
	t.Helper()
	p := &pair{stores: stores, t: t, world: sessiontest.NewWorld(), dirs: map[string]string{}, logs: map[string]*journal.Journal{}, id: id, lazy: true, network: transfertest.NewNetwork()}
	p.free.Store(1 << 30)
	for _, h := range []string{"alpha", "beta"} {
		p.dirs[h] = t.TempDir()
	}
	p.alpha, p.beta = p.world.Host("alpha", p.dirs["alpha"]), p.world.Host("beta", p.dirs["beta"])
	p.tree = p.alpha.Run(name, at)
	p.source, p.target = p.worker("alpha", p.alpha), p.worker("beta", p.beta)
	p.serveChannels("alpha", func() *session.Registry { return p.source })
	p.serveChannels("beta", func() *session.Registry { return p.target })
	t.Cleanup(func() {
		p.source.Close()
		p.target.Close()
		for _, w := range p.world.Wrong() {
			t.Errorf("two copies, or one risen from the dead: %s", w)
		}
		if t.Failed() {
			t.Logf("steps: %v", p.world.Steps())
		}
	})
	return p
}

// worker starts a host's worker: with the journal it left, if it ran before.
func (p *pair) worker(host string, trees *sessiontest.Host) *session.Registry {
	p.t.Helper()
	j, got, err := journal.Open(filepath.Join(p.dirs[host], "journal"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.logs[host] = j
	p.t.Cleanup(func() { j.Close() })
	r := session.New(session.Config{
		Host: host, Boot: "now", Trees: trees, Journal: j, Tracker: sessiontest.Tracker, Images: cmp.Or(p.images, p.dirs[host]),
		MemoryFree: func() (int64, error) { return p.free.Load(), nil }, Stores: p.stores, StillFor: p.still, Nice: p.nice,
		Dial: func(ctx context.Context, to workerapi.Peer, sent pki.Transfer, _ string) (net.Conn, error) {
			return p.dial(ctx, host, to, sent)
		},
	})
	if err := r.Recover(p.t.Context(), got.Records); err != nil {
		p.t.Fatal(err)
	}
	return r
}

// serveChannels lets a host's worker, whichever runs, take the page channels that come. A channel begins with a line of what
// its certificate is bound to, which on a real link SSH proves.
func (p *pair) serveChannels(host string, worker func() *session.Registry) {
	l, err := p.network.Listen(host + ":7202")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var sent pki.Transfer
				if json.Unmarshal([]byte(readLine(conn)), &sent) != nil {
					return
				}
				p.mu.Lock()
				taker := worker()
				p.mu.Unlock()
				taker.TakePages(context.Background(), sent, conn)
			}()
		}
	}()
}

// readLine reads a line and nothing after it.
func readLine(r io.Reader) string {
	var line []byte
	for b := make([]byte, 1); ; line = append(line, b...) {
		if _, err := io.ReadFull(r, b); err != nil || b[0] == '\n' {
			return string(line)
		}
	}
}

func (p *pair) dial(ctx context.Context, from string, to workerapi.Peer, sent pki.Transfer) (net.Conn, error) {
	text, err := json.Marshal(sent)
	if err != nil {
		return nil, err
	}
	conn, err := p.network.From(from)(ctx, to.Address)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "%w", err)
	}
	_, err = fmt.Fprintf(conn, "%s\n", text)
	return conn, err
}

// cut breaks the connections that there are.
func (p *pair) cut() { p.network.Reset("alpha", "beta") }

// restart ends a worker, as far as that can be: keepers and the journal stay.
func (p *pair) restart(host string) {
	p.t.Helper()
	switch host {
	case "alpha":
		p.source.Close()
		p.logs[host].Close()
		again := p.worker(host, p.alpha)
		p.mu.Lock()
		p.source = again
		p.mu.Unlock()
	case "beta":
		p.target.Close()
		p.logs[host].Close()
		again := p.worker(host, p.beta)
		p.mu.Lock()
		p.target = again
		p.mu.Unlock()
	}
}

func (p *pair) request(r migration.Role) workerapi.OpenRequest {
	spec := workload.Spec{Name: name, Kind: workload.Run, Command: []string{"redis-server"}}
	return workerapi.OpenRequest{
		Migration: p.id, Role: r, Epoch: at, Boot: p.boot, Spec: spec,
		Source: workerapi.Peer{Host: "alpha", Address: "alpha:7202"}, Target: workerapi.Peer{Host: "beta", Address: "beta:7202"},
		Inventory: workerapi.Inventory{Workload: name, Spec: spec, RSS: 1 << 20, Engine: engine.Features{LazyPages: p.lazy}}, Options: p.opts,
	}
}

func (p *pair) open() {
	p.t.Helper()
	if _, err := p.target.Open(p.t.Context(), p.request(migration.Target)); err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.source.Open(p.t.Context(), p.request(migration.Source)); err != nil {
		p.t.Fatal(err)
	}
}

// await waits until a session has reached one of those steps, and gives its state then.
func (p *pair) await(r *session.Registry, steps ...workerapi.Step) workerapi.SessionState {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	var last workerapi.SessionState
	found := errs.New(errs.Failed, "found")
	err := r.Watch(ctx, p.id, 0, func(e workerapi.Event) error {
		last = e.State
		if slices.Contains(steps, e.State.Step) {
			return found
		}
		return nil
	})
	if !errors.Is(err, found) {
		p.t.Fatalf("waited for %v, saw %s last (%s): %v", steps, last.Step, last.Error, err)
	}
	return last
}

// upTo drives the migration until it has reached the phase, with both hosts told.
func (p *pair) upTo(phase migration.Phase) {
	p.t.Helper()
	p.open()
	if phase == migration.Copying {
		return
	}
	p.await(p.source, workerapi.StepReady)
	if err := p.source.CutOver(p.t.Context(), p.id, at); err != nil {
		p.t.Fatal(err)
	}
	p.await(p.source, workerapi.StepStaged)
	p.await(p.target, workerapi.StepHeld)
	if phase == migration.Held {
		return
	}
	p.decide(p.target, migration.Commit)
	if phase == migration.Released {
		return
	}
	p.decide(p.source, migration.Commit)
	p.confirm(p.source)
	p.confirm(p.target)
}

func epochOf(v migration.Verdict) migration.Epoch {
	return map[migration.Verdict]migration.Epoch{migration.Commit: at + 1, migration.Abort: at, migration.Reclaim: at + 2}[v]
}

func (p *pair) decide(r *session.Registry, v migration.Verdict) workerapi.SessionState {
	p.t.Helper()
	st, err := r.Decide(p.t.Context(), p.id, v, epochOf(v))
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

func (p *pair) confirm(r *session.Registry) {
	p.t.Helper()
	if _, err := r.Confirm(p.t.Context(), p.id, at+1); err != nil {
		p.t.Fatal(err)
	}
}

// until waits for a state of a session.
func (p *pair) until(r *session.Registry, enough func(workerapi.SessionState) bool) {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); !enough(p.state(r)); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("it stays %+v", p.state(r))
		}
	}
}

// state is a session's state now.
func (p *pair) state(r *session.Registry) workerapi.SessionState {
	p.t.Helper()
	st, err := r.Session(p.t.Context(), p.id)
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

// livesOnlyOn checks that the tree runs there and that there is no other copy of it.
func (p *pair) livesOnlyOn(host string) {
	p.t.Helper()
	if run, live := p.world.Running(name), p.world.Living(name); !slices.Equal(run, []string{host}) || !slices.Equal(live, run) {
		p.t.Errorf("it runs on %v and is on %v, want only %s", run, live, host)
	}
	h := map[string]*sessiontest.Host{"alpha": p.alpha, "beta": p.beta}[host]
	if h.Copy(name).Fenced() {
		p.t.Errorf("its address on %s is still hidden", host)
	}
}
