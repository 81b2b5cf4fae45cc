package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// probed is an engine that can only be asked what it can do.
type probed struct {
	engine.Engine
	probe func(context.Context) (engine.Features, error)
	asked *atomic.Int32
}

func (p probed) Probe(ctx context.Context) (engine.Features, error) {
	p.asked.Add(1)
	return p.probe(ctx)
}

// able can all that is asked for.
var able = engine.Features{Engine: "model", Version: "4.2.1", LazyPages: true, WPAsync: true}

// deaf is an engine whose CRIU cannot even be killed: it answers when end is closed.
func deaf(end chan struct{}) probed {
	return probed{asked: new(atomic.Int32), probe: func(context.Context) (engine.Features, error) { <-end; return able, nil }}
}

// A host that is not heard of is called lost with its trees.
func TestAWorkerWhoseCRIUHangsIsHeard(t *testing.T) {
	c := newCluster(t)
	c.coordinate()
	end := make(chan struct{})
	defer close(end)
	c.engine = deaf(end)
	c.work("alpha").trees.Run(name, at)
	c.until("two heartbeats", func() bool { c.record.mu.Lock(); defer c.record.mu.Unlock(); return c.record.heard > 1 })
	c.record.mu.Lock()
	defer c.record.mu.Unlock()
	if f := c.record.beats["alpha"].Facts; !strings.Contains(f.Engine.Unfit, "not known yet") || f.MemoryTotal == 0 {
		t.Errorf("it says %+v", f)
	}
}

func TestAnEngineThatHangsIsAskedOnceAndHeardLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		e := deaf(end)
		p := newProber(e, slog.New(slog.DiscardHandler))
		defer p.end()
		if a := p.now(); !errors.Is(a.fit(), errNotYet) {
			t.Errorf("at once: %v", a.fit())
		}
		began := time.Now()
		if err := p.await(t.Context()); err != nil || time.Since(began) > patience+time.Second {
			t.Errorf("waited %s: %v", time.Since(began), err)
		}
		for range 5 {
			if err := p.now().fit(); err == nil || !strings.Contains(err.Error(), "it hangs") {
				t.Errorf("it hangs: %v", err)
			}
			<-time.After(askAgain)
		}
		if n := e.asked.Load(); n != 1 {
			t.Errorf("asked %d times at once", n)
		}
		close(end)
		synctest.Wait()
		if a := p.now(); a.fit() != nil || a.Version != able.Version {
			t.Errorf("what came late: %+v", a)
		}
	})
}

func TestWhatIsMissingIsLookedForAgainAndWhatIsThereIsNot(t *testing.T) {
	busy := able
	busy.LazyPages = false
	unwatched := able
	unwatched.WPAsync = false
	old := able
	old.Unfit = "CRIU 3.17.1 is too old"
	for _, c := range []struct {
		what string
		f    engine.Features
		err  error
	}{{"lazy pages", busy, nil}, {"the tracker", unwatched, nil}, {"a CRIU", old, nil}, {"an answer", engine.Features{}, errors.New("no such file")}, {"nothing", able, nil}} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := probed{asked: new(atomic.Int32)}
				e.probe = func(context.Context) (engine.Features, error) {
					if e.asked.Load() == 1 {
						return c.f, c.err
					}
					return able, nil
				}
				p := newProber(e, slog.New(slog.DiscardHandler))
				defer p.end()
				for _, after := range []time.Duration{0, askAgain - 1} {
					<-time.After(after)
					p.now()
					synctest.Wait()
					if a := p.now(); a.LazyPages != c.f.LazyPages || a.Unfit != c.f.Unfit || !errors.Is(a.err, c.err) || e.asked.Load() != 1 {
						t.Errorf("after %s: %+v, asked %d times", after, a, e.asked.Load())
					}
				}
				<-time.After(1)
				for range 3 {
					p.now()
					synctest.Wait()
					<-time.After(askAgain)
				}
				want := int32(2)
				if c.what == "nothing" {
					want = 1
				}
				if a := p.now(); a.lacks(wanted) || e.asked.Load() != want {
					t.Errorf("later: %+v, asked %d times", a, e.asked.Load())
				}
			})
		})
	}
}

func TestAnAnswerThatIsWorseChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := able
		first.WPAsync = false
		e := probed{asked: new(atomic.Int32)}
		e.probe = func(context.Context) (engine.Features, error) {
			switch e.asked.Load() {
			case 1:
				return first, nil
			case 2:
				return engine.Features{}, errors.New("too busy")
			}
			return engine.Features{Version: able.Version, WPAsync: true}, nil
		}
		p := newProber(e, slog.New(slog.DiscardHandler))
		defer p.end()
		for range 3 {
			synctest.Wait()
			if a := p.now(); a.fit() != nil || !a.LazyPages {
				t.Errorf("it can %+v", a)
			}
			<-time.After(askAgain)
			p.now()
		}
	})
}

// waits is a host's workloads that note when they are asked.
type waits struct {
	workloadCalls
	fit  func() error
	told error
}

func (w *waits) Checkpoint(_ context.Context, _, _ string, _ migration.FinalState) (workerapi.CheckpointReport, error) {
	w.told = w.fit()
	return workerapi.CheckpointReport{}, w.told
}

// What needs CRIU right after the start waits for its first answer, and before it is its workload's turn.
func TestACheckpointRightAfterTheStartWaitsForTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		a := &Agent{engine: newProber(deaf(end), slog.New(slog.DiscardHandler))}
		defer a.engine.end()
		w := &waits{fit: a.fit}
		a.workloadCalls = w
		time.AfterFunc(time.Second, func() { close(end) })
		if _, err := a.Checkpoint(t.Context(), name, filepath.Join(t.TempDir(), "c"), migration.Running); err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		a := &Agent{engine: newProber(deaf(end), slog.New(slog.DiscardHandler))}
		defer close(end)
		defer a.engine.end()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Checkpoint(ctx, name, "/c", migration.Running); errs.KindOf(err) != errs.Timeout || !errors.Is(err, errNotYet) {
			t.Errorf("nobody waits any longer: %v", err)
		}
	})
}
