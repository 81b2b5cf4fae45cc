package workloads

import (
	"context"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/worker/cgroup"
	"drover/worker/keeper"
)

// follow waits for the end of e's tree and records it. A keeper that died is replaced by another one.
func (h *Host) follow(e *entry) {
	ended := make(chan struct{})
	h.mu.Lock()
	e.exit = ended
	pid, birth := e.rec.Pid, e.rec.Birth
	h.mu.Unlock()
	h.tasks.Add(1)
	go func() {
		defer h.tasks.Done()
		state, err := h.awaitEnd(h.ctx, e, pid, birth)
		if err != nil {
			return // Close was called
		}
		h.buried(e, pid, birth, state, ended)
	}()
}

// awaitEnd returns how the tree ended, or ctx's error.
func (h *Host) awaitEnd(ctx context.Context, e *entry, pid int, birth uint64) (keeper.State, error) {
	for {
		s, err := h.client(e.name).Wait(ctx)
		switch {
		case ctx.Err() != nil:
			return s, ctx.Err()
		case err == nil && (s.Pid == pid || s.Birth == birth):
			return s, nil
		case err == nil:
			return keeper.State{Exited: true}, nil // the keeper has another tree by now
		}
		if gonePid(pid) || !sameProcess(pid, birth) {
			s, err := keeper.ReadState(h.keeperDir(e.name))
			if err == nil && s.Exited && s.Pid == pid {
				return s, nil
			}
			return keeper.State{Pid: pid, Exited: true, At: time.Now().UTC()}, nil
		}
		h.log.Warn("a keeper has died: its tree gets another", "workload", e.name, "error", err)
		if err := h.replaceKeeper(ctx, e, pid, birth); err != nil {
			h.log.Error("a tree has no keeper", "workload", e.name, "error", err)
			select { // nothing announces that a keeper can be started again
			case <-ctx.Done():
				return s, ctx.Err()
			case <-time.After(time.Second):
			}
		}
	}
}

func sameProcess(pid int, birth uint64) bool {
	born, _, err := keeper.Birth(pid)
	return err == nil && born == birth
}

// replaceKeeper starts another keeper for a tree that lives.
func (h *Host) replaceKeeper(ctx context.Context, e *entry, pid int, birth uint64) error {
	r := h.record(e)
	k, err := h.spawn(ctx, r.Spec, r.Place)
	if err != nil {
		return err
	}
	return k.Watch(ctx, pid, birth)
}

// buried records the end of a tree and removes what stood for it; the output stays. It is not for a tree that was moved
// away: its dying was the point.
func (h *Host) buried(e *entry, pid int, birth uint64, s keeper.State, ended chan struct{}) {
	defer close(ended)
	done, err := e.take(h.ctx)
	if err != nil {
		return
	}
	r := h.record(e)
	if r.Pid != pid || r.Birth != birth || !r.alive() || (r.Migration != "" && r.Role == migration.Source) {
		done()
		return
	}
	r.ended(s)
	r.Uncleared = true
	if err := h.put(e, r); err != nil {
		h.log.Error("a workload's end could not be recorded", "workload", e.name, "error", err)
	}
	h.clear(h.ctx, e, r)
	done()
	h.log.Info("workload ended", "workload", e.name, "code", r.ExitCode, "signal", r.Signal, "known", r.ExitKnown)
	if h.cfg.OnExit != nil {
		h.cfg.OnExit(h.status(e))
	}
}

// ended notes how a tree ended.
func (r *record) ended(s keeper.State) {
	r.State, r.Exited = workload.Exited, s.At
	r.ExitKnown, r.ExitCode, r.Signal = s.Known, s.Code, s.Signal
	if r.Exited.IsZero() {
		r.Exited = time.Now().UTC()
	}
}

// clear removes what stood for a tree whose end is recorded, and records that. What fails is tried again by the next worker.
func (h *Host) clear(ctx context.Context, e *entry, r record) {
	err := h.clearAfter(ctx, r)
	if err == nil {
		r.Uncleared = false
		err = h.put(e, r)
	}
	if err != nil {
		h.log.Error("something is left of a workload that ended", "workload", e.name, "error", err)
	}
}

// clearAfter removes what stood for a tree whose root has ended. Descendants that an adopted root left behind live on until
// the workload is removed.
func (h *Host) clearAfter(ctx context.Context, r record) error {
	if left, _ := cgroup.Group(r.Place.Cgroup).Pids(); r.Spec.Kind == workload.Adopt && len(left) > 0 {
		if err := h.endKeeper(ctx, r.Spec.Name); err != nil {
			return err
		}
		return h.disconnect(ctx, r.Spec)
	}
	return h.tearDown(ctx, r.Spec, r.Place, keepFiles)
}

// meetAgain finds out, when a worker starts, what became of a workload meanwhile.
func (h *Host) meetAgain(ctx context.Context, e *entry) error {
	r := e.rec
	switch {
	case r.State == workload.Exited && r.Uncleared && r.Boot == h.boot: // who recorded the end died before it had cleared
		h.clear(ctx, e, r)
		return nil
	case r.State == gone, r.State == workload.Exited, r.State == workload.Lost:
		return nil
	case r.Boot != h.boot && r.State == reserved:
		return h.forget(ctx, e, r, moveAway)
	case r.Boot != h.boot:
		r.State, r.Migration, r.Role, r.Pid = workload.Lost, "", "", 0
		h.log.Error("a workload was lost when its host went down", "workload", e.name)
		return h.put(e, r)
	case r.State == workload.Starting:
		return h.meetStarting(ctx, e, r)
	case r.State == reserved: // who takes up its migration asks its keeper
		return nil
	}
	if (r.State == workload.Running || r.State == workload.Stopped) && h.client(e.name).Dumped() {
		_ = h.letGo(ctx, e, func(bool) {}) // who finds the images may look at them
	}
	h.follow(e)
	return nil
}

// meetStarting settles a start that a crash interrupted: what has begun to run is kept.
func (h *Host) meetStarting(ctx context.Context, e *entry, r record) error {
	s, err := h.client(e.name).State(ctx)
	if err == nil && s.Pid != 0 && !s.Exited {
		r.State, r.Pid, r.Birth = workload.Running, s.Pid, s.Birth
		if r.Place.Cgroup == "" { // the record was written before its place was known
			if r.Place, err = h.plan(r.Spec, false); err != nil {
				return err
			}
		}
		if err := h.put(e, r); err != nil {
			return err
		}
		h.follow(e)
		return nil
	}
	if r.Spec.Kind == workload.Adopt {
		return h.forgetAdopted(ctx, e, r)
	}
	if r.Place.Cgroup == "" {
		r.Place.Cgroup = string(cgroup.For(h.mount, r.Spec.Name))
	}
	return h.forget(ctx, e, r, dropOutput)
}

// forgetAdopted lets go of a tree that was being adopted: it lives on, in whatever cgroup it is.
func (h *Host) forgetAdopted(ctx context.Context, e *entry, r record) error {
	if err := h.endKeeper(ctx, e.name); err != nil {
		return err
	}
	return h.put(e, record{Spec: workload.Spec{Name: e.name}, Epoch: r.Epoch, State: gone})
}

// forget removes everything of a workload but the memory of its epoch.
func (h *Host) forget(ctx context.Context, e *entry, r record, files fate) error {
	s := r.Spec
	if r.State == workload.Exited && !r.Uncleared {
		s.Address = "" // it was given up when the tree ended, and may be somebody else's
	}
	if err := h.tearDown(ctx, s, r.Place, files); err != nil {
		return errs.New(errs.KindOf(err), "forget workload %s: %w", e.name, err)
	}
	return h.put(e, record{Spec: workload.Spec{Name: e.name}, Epoch: r.Epoch, State: gone})
}
