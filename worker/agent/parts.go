package agent

import (
	"context"

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
	if p.Engine == nil {
		p.Engine = criu.New(criu.Config{Path: a.cfg.CRIU, Log: a.log})
	}
	a.engine = newProber(p.Engine, a.log)
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
		a.doctorCalls = doctor.Doctor{Workloads: a.workloads.Workloads, Facts: a.knownHost}
	}
	return nil
}

// fit is nil if this host's engine can dump and restore trees. It never waits: what needs the first answer has awaited it.
func (a *Agent) fit() error { return a.engine.now().fit() }

// chooseTracker makes the best tracker that works on this host, or the one asked for; should it fail, the next best goes on.
func (a *Agent) chooseTracker(_ context.Context, name string, lent tree.Lent, dir string) (track.Tracker, error) {
	can := a.engine.now()
	if can.err != nil {
		return nil, can.err
	}
	f := can.Features
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
