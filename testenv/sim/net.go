package sim

import (
	"drover/coordinator/drive"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Kinds of messages.
type kind uint8

const (
	call     kind = iota // a leader's, to a host
	reply                // to a call or a proposal
	propose              // to the log
	told                 // a session's state, on an open stream of events
	lastWord             // a source's, that the target has all now
	received             // the target's, that it has
	learn                // what the record says, to a worker that asked
)

// message is under way.
type message struct {
	kind   kind
	from   *driver
	to     *host
	id     migration.ID
	action drive.Action
	call   int
	state  *workerapi.SessionState
	err    error
	phase  migration.Phase
	boot   int // of the sending side's life; streams end with it
}

func (w *world) send(m *message) { w.net = append(w.net, m) }

// drop loses a message: who waits for an answer gets an error in the end.
func (w *world) drop(i int) {
	m := w.net[i]
	w.net = append(w.net[:i], w.net[i+1:]...)
	switch m.kind {
	case call, propose, reply:
		w.send(&message{kind: reply, from: m.from, action: m.action, call: m.call, err: errs.New(errs.Timeout, "no answer")})
	}
}

func (k kind) String() string {
	return [...]string{"a call", "an answer", "a proposal", "an event", "the last word", "the acknowledgement", "what the record says"}[k]
}

// deliver lets a message arrive.
func (w *world) deliver(m *message) {
	switch m.kind {
	case call:
		m.to.called(m)
	case reply:
		m.from.answered(m)
	case propose:
		w.take(m)
	case told:
		if d := m.from; !d.lead.gone && !d.over {
			if m.action.Role == migration.Source {
				d.view.Source.Hear(*m.state, d.lead.clock())
			} else {
				d.view.Target.Hear(*m.state, d.lead.clock())
			}
			d.act()
		}
	case lastWord:
		if s := m.to.session(m.id); m.to.serves() && s != nil && s.Role == migration.Target && s.opened {
			s.lastWord = true
		}
	case received:
		if s := m.to.session(m.id); m.to.serves() && s != nil && s.Role == migration.Source && m.boot == m.to.lives {
			s.acked = true
		}
	case learn:
		m.to.learn(m)
	}
}

// answer sends what came of a call.
func (w *world) answer(m *message, st *workerapi.SessionState, err error) {
	if m == nil || m.from == nil {
		return
	}
	if m.kind == learn {
		return
	}
	w.send(&message{kind: reply, from: m.from, action: m.action, call: m.call, state: st, err: err})
}

// tell sends a session's state to the leaders that follow it.
func (w *world) tell(s *session) {
	tellOne := func(l *leader) {
		d := l.driver(s.Migration)
		if d == nil || l.gone {
			return
		}
		side := &d.view.Source
		if s.Role == migration.Target {
			side = &d.view.Target
		}
		if !side.Known {
			return
		}
		st := s.SessionState
		w.send(&message{kind: told, from: d, action: drive.Action{Role: s.Role}, state: &st})
	}
	tellOne(w.lead)
	for _, l := range w.old {
		tellOne(l)
	}
}
