package sim

import (
	"drover/coordinator/drive"
	"drover/coordinator/record"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session/rules"
)

// event is something that can happen now.
type event struct {
	message int // its place in the net, if task and look are nil
	task    *task
	look    func()
}

// events lists what can happen: messages that can arrive, ops that can be done, what a watcher sees.
func (w *world) events() []event {
	all := w.runnable[:0]
	for i := range w.net {
		all = append(all, event{message: i})
	}
	for _, h := range w.hosts {
		if !h.up || !h.worker {
			continue
		}
		for _, s := range h.sessions {
			if t := s.work; t != nil && !t.blocked() {
				all = append(all, event{task: t})
			}
			if t := s.act; t != nil && !t.blocked() {
				all = append(all, event{task: t})
			}
			if s.act == nil && s.opened && h.ready {
				if f := h.sees(s); f != nil {
					all = append(all, event{look: f})
				}
			}
		}
	}
	w.runnable = all
	return all
}

func (w *world) do(e event) {
	switch {
	case e.task != nil:
		e.task.step()
	case e.look != nil:
		e.look()
	default:
		m := w.net[e.message]
		w.net = append(w.net[:e.message], w.net[e.message+1:]...)
		w.deliver(m)
	}
}

// sees is what a session's watchers would do now: watchHold, watchFilling and probation of worker/session.
func (h *host) sees(s *session) func() {
	if s.Role != migration.Target || s.Nothing {
		return nil
	}
	t := h.place.tree
	if !h.mine(s) {
		t = nil
	}
	released := s.Step == workerapi.StepReleased && !s.Gone
	switch {
	case s.Step == workerapi.StepHeld && !s.settledBy && !h.holds(s) && s.Verdict == migration.Undecided:
		return func() { h.watch(s, s.HoldLost(), nil) }
	case released && (t == nil || !t.alive):
		signal := 0
		if t != nil {
			signal = t.signal
		}
		return func() {
			if signal == 0 {
				s.Passed(0)
				h.w.tell(s)
				return
			}
			h.watch(s, rules.Program{rules.Kill}, func() { s.Passed(signal) })
		}
	case s.Filling != nil && t != nil && t.filled:
		return func() {
			s.Filling = nil
			h.w.tell(s)
		}
	case s.Filling != nil && t != nil && !t.filled && t.filler && !t.asleep:
		return func() { t.filled, t.filler = true, false }
	case s.Filling != nil && t != nil && t.alive && !t.filler && !(s.Step == workerapi.StepHeld && s.Verdict != migration.Undecided):
		p, _ := s.Unfilled()
		if len(p) == 0 {
			return nil
		}
		return func() {
			h.watch(s, p, func() {
				if s.Step == workerapi.StepReleased {
					s.Passed(9)
				}
			})
		}
	}
	return nil
}

// holds says whether the engine still holds the tree for a session.
func (h *host) holds(s *session) bool {
	return s.hold != nil && h.place.keeper && h.place.hold == s.hold && s.hold.criu
}

// watch carries out what a watcher has found to be done; it takes the right to act, as a verdict does.
func (h *host) watch(s *session, p rules.Program, then func()) {
	if len(p) == 0 {
		return
	}
	s.act = &task{s: s, what: watching, prog: p, all: s.Step != workerapi.StepReleased, then: func() {
		if then != nil {
			then()
		}
		h.w.tell(s)
	}}
}

// news is what the record learns of a heartbeat, as coordinator's newsOf.
func (w *world) news(h *host) {
	wl := w.state.Workloads[name]
	p := &h.place
	h.bury()
	if p.state == exited && wl.Owner == h.name && wl.Epoch == p.epoch && wl.Migration == "" && wl.Life != record.Exited {
		_ = w.apply(w.lead, record.WorkloadExited{Name: name, Epoch: wl.Epoch}) // refused if the record has moved on
		w.say("log", "the workload has ended on %s", h.name)
	}
}

// strays ends sessions that a host still has of migrations that are over, as coordinator's endStrays.
func (w *world) strays(h *host) {
	for _, s := range h.sessions {
		m, ok := w.state.Migrations[s.Migration]
		if !ok || !m.Phase.Final() || s.Ended() || s.act != nil || !s.opened {
			continue
		}
		for _, a := range drive.Stray(m) {
			if a.Do == drive.Confirm {
				if s.Verdict == migration.Commit && s.Ruled {
					h.confirm(s, nil, a.Epoch)
				}
			} else {
				h.decide(s, nil, a.Verdict, a.Epoch)
			}
			if s.act != nil {
				w.say(w.lead.name(), "%s: %s a stray session on %s", m.ID, a.Do, h.name)
				break
			}
		}
	}
}

// askVerdicts has a worker ask for the verdicts on sessions of which no leader speaks, as the agent's pollVerdicts.
func (w *world) askVerdicts(h *host) {
	if !h.serves() {
		return
	}
	for _, s := range h.sessions {
		if s.Ended() || !s.opened || int(w.now/tick)-s.heard < 4 {
			continue
		}
		l := w.lead
		if len(w.old) > 0 && w.draw(2) == 1 {
			l = w.old[len(w.old)-1] // which answers from the record as it knows it
		}
		if m, ok := l.state.Migrations[s.Migration]; ok && !l.gone {
			s.heard = int(w.now / tick)
			w.send(&message{kind: learn, to: h, id: s.Migration, phase: m.Phase})
		}
	}
}
