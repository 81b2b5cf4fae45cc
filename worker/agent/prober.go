package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"drover/engine"
	"drover/internal/errs"
)

const (
	// patience is how long an engine may take to say what it can do before it counts as one that hangs; CRIU's gives up after 10 s by itself.
	patience = 15 * time.Second
	// askAgain is how long something is taken to be missing before that is looked at again: CRIU may be installed meanwhile, or have been too
	// busy to answer.
	askAgain = time.Minute
)

// prober knows what this host's engine can do. It asks in goroutines of its own, one question at a time: a CRIU that hangs, even one that cannot be killed,
// keeps nobody else waiting. Methods may be called by several at once.
type prober struct {
	engine engine.Engine
	log    *slog.Logger
	ctx    context.Context //nolint:containedctx // the worker's life
	end    context.CancelFunc
	known  chan struct{} // closed with the first answer

	mu     sync.Mutex
	last   answer
	asking bool
}

type answer struct {
	engine.Features
	err   error
	until time.Time // zero: for good
}

func (a answer) fit() error {
	if a.err != nil {
		return a.err
	}
	return a.Fit()
}

// lacks says whether an answer has not all that another has.
func (a answer) lacks(b answer) bool {
	return b.fit() == nil && (a.fit() != nil || b.LazyPages && !a.LazyPages || b.WPAsync && !a.WPAsync)
}

// wanted is an answer that need not be asked for again.
var wanted = answer{Features: engine.Features{LazyPages: true, WPAsync: true}}

var errNotYet = errs.New(errs.Unavailable, "it is not known yet what CRIU can do on this host").WithNext("try again in a moment")

// newProber begins to ask. Whoever calls it calls end.
func newProber(e engine.Engine, log *slog.Logger) *prober {
	p := &prober{engine: e, log: log, known: make(chan struct{}), last: answer{err: errNotYet, until: time.Now()}}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.now()
	return p
}

// now is the last answer. It never waits; if the answer has grown old the engine is asked anew.
func (p *prober) now() answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asking && !p.last.until.IsZero() && !time.Now().Before(p.last.until) {
		p.asking = true
		go p.ask()
	}
	return p.last
}

// soon is now, but for the first answer it waits as long as most take, so that what a host first says of itself is whole.
func (p *prober) soon(ctx context.Context) answer {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = p.await(ctx)
	return p.now()
}

// await waits for the first answer, for little more than patience.
func (p *prober) await(ctx context.Context) error {
	select {
	case <-p.known:
		return nil
	case <-ctx.Done():
		return errs.New(errs.KindOf(ctx.Err()), "%w: %w", errNotYet, ctx.Err())
	}
}

// ask asks once. As long as the engine has not answered it is not asked again, late as it may be.
func (p *prober) ask() {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	said := make(chan answer, 1)
	go func() {
		f, err := p.engine.Probe(ctx)
		said <- answer{Features: f, err: err}
	}()
	select {
	case a := <-said:
		p.keep(a, true)
	case <-time.After(patience + time.Second): // an engine that keeps its word has noticed ctx by then
		p.keep(answer{Features: engine.Features{Engine: "criu"}, err: errs.New(errs.Unavailable, "CRIU has not said within %s what it can do: it hangs", patience).
			WithNext("see what `criu check` says on this host, and what state it is in")}, false)
		select {
		case a := <-said:
			p.keep(a, true)
		case <-p.ctx.Done():
		}
	}
}

// keep makes an answer the last one, and says in the log whether trees can be moved if that has changed. A host's kernel and CRIU do not get worse under
// a running worker: an answer that says so tells of one that was too busy, and changes nothing.
func (p *prober) keep(a answer, over bool) {
	if p.ctx.Err() != nil { // then it tells of nothing but the worker's end
		return
	}
	p.mu.Lock()
	before := p.last
	if a.lacks(before) {
		a = before
	}
	if a.lacks(wanted) {
		a.until = time.Now().Add(askAgain)
	}
	p.last, p.asking = a, !over
	p.mu.Unlock()
	first := errors.Is(before.err, errNotYet)
	if first {
		close(p.known)
	}
	switch why := a.fit(); {
	case why != nil && why.Error() != before.fit().Error(): // trees run here all the same, and what is held is not let down
		p.log.Warn("this host can neither checkpoint nor move trees, and takes none", "error", why, "next", errs.NextOf(why))
	case why == nil && before.fit() != nil && !first:
		p.log.Info("this host can checkpoint and move trees now", "engine", a.Version)
	}
}
