package agent

import (
	"context"
	"time"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/track"
	"drover/worker/doctor"
	"drover/worker/keeper"
	"drover/worker/tree"
	"drover/worker/workloads"
)

// makeParts makes for real what the configuration does not bring.
func (a *Agent) makeParts() error {
	p := a.cfg.Parts
	a.engine = p.Engine
	if a.engine == nil {
		a.engine = probeOnce(criu.New(criu.Config{Path: a.cfg.CRIU, Log: a.log}))
	}
	a.tracker = p.Tracker
	if a.tracker == nil {
		a.tracker = a.chooseTracker
	}
	a.workloads = p.Workloads
	if a.workloads == nil {
		h, err := workloads.Open(context.Background(), workloads.Config{
			StateDir: a.cfg.StateDir, RunDir: a.cfg.RunDir, CRIU: a.cfg.CRIU, Look: doctor.Look, Fit: a.fit, Log: a.log,
		})
		if err != nil {
			return err
		}
		a.workloads = h
	}
	a.workloadCalls = a.workloads
	a.doctorCalls = p.Doctor
	if a.doctorCalls == nil {
		a.doctorCalls = doctor.Doctor{Workloads: a.workloads.Workloads, Facts: a.Host}
	}
	return nil
}

// fit is nil if this host's engine can dump and restore trees.
func (a *Agent) fit(ctx context.Context) error {
	f, err := a.engine.Probe(ctx)
	if err != nil {
		return err
	}
	return f.Fit()
}

// chooseTracker makes the best tracker that works on this host, or the one asked for; should it fail, the next best goes on.
func (a *Agent) chooseTracker(ctx context.Context, name string, lent tree.Lent, dir string) (track.Tracker, error) {
	f, err := a.engine.Probe(ctx)
	if err != nil {
		return nil, err
	}
	chosen, err := track.Choose(f, name)
	if err != nil {
		return nil, err
	}
	return track.NewFalling(append([]string{chosen}, track.After(f, chosen)...), func(name string) track.Tracker {
		switch name {
		case "wp":
			return track.NewWP(lent.Tree(), keeper.StartInjector, a.log)
		case "softdirty":
			return track.NewSoftDirty(lent.Engine(), lent.Tree(), lent.Options(), dir)
		}
		return track.NewHash(lent.Tree())
	}, a.log), nil
}

// askAgain is how long a host is taken to be unfit before that is looked at again: CRIU may be installed meanwhile.
const askAgain = time.Minute

// once asks an engine that is fit what it can do one single time: a host's kernel and CRIU do not get worse under a running worker.
type once struct {
	engine.Engine
	answer chan features
}

type features struct {
	engine.Features
	err   error
	known bool
	until time.Time // zero: for good
}

func (f features) holds() bool { return f.known && (f.until.IsZero() || time.Now().Before(f.until)) }

func probeOnce(e engine.Engine) engine.Engine {
	o := once{e, make(chan features, 1)}
	o.answer <- features{}
	return o
}

func (o once) Probe(ctx context.Context) (engine.Features, error) {
	var f features
	select {
	case f = <-o.answer:
	case <-ctx.Done():
		return engine.Features{}, ctx.Err()
	}
	defer func() { o.answer <- f }()
	if f.holds() {
		return f.Features, f.err
	}
	got, err := o.Engine.Probe(ctx)
	if ctx.Err() == nil { // else it says nothing of the engine
		f = features{Features: got, err: err, known: true}
		if err != nil || got.Unfit != "" {
			f.until = time.Now().Add(askAgain)
		}
	}
	return got, err
}
