package sim

import (
	"errors"
	"strconv"

	"drover/coordinator/drive"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session/rules"
)

// session is one side of a migration in a worker, as worker/session's: it is gone when the worker is.
type session struct {
	rules.Session
	h      *host
	req    workerapi.OpenRequest
	ruling rules.Ruling
	hold   *hold // the keeper's, as this worker knows it

	opened    bool
	mayFreeze bool
	lastWord  bool // target: it has come
	sent      bool // source: the last word
	acked     bool // and its acknowledgement
	cancelled bool // its work is to end
	work, act *task
	waits     *rules.Past   // by which it is to be taken up, when its keeper answers
	again     rules.Program // of its taking up, which has failed
	settledBy bool          // a verdict has been acted on: nobody looks out for the hold any more
	heard     int           // when a leader last spoke of it, in ticks
}

// What a task is for.
type purpose uint8

const (
	opening purpose = iota
	working
	deciding
	confirming
	takingUp
	takingUpAgain
	watching
)

// task is a program on its way.
type task struct {
	s      *session
	what   purpose
	prog   rules.Program
	first  rules.Program // taking up: prog as it was
	pc     int
	all    bool // tried to the end, whatever fails
	err    error
	failed rules.Op
	gaveUp bool
	answer *message
	then   func() // what follows a watching task, or taking up
	after  func() // what follows that
}

func (h *host) serves() bool { return h.up && h.worker && h.ready }

func (h *host) session(id migration.ID) *session {
	for _, s := range h.sessions {
		if s.Migration == id {
			return s
		}
	}
	return nil
}

// called is a leader's call.
func (h *host) called(m *message) {
	w := h.w
	if !h.serves() {
		w.answer(m, nil, errs.New(errs.Unavailable, "host %s does not answer", h.name))
		return
	}
	if m.action.Do == drive.Open {
		h.open(m)
		return
	}
	s := h.session(m.id)
	switch {
	case s == nil:
		w.answer(m, nil, errs.New(errs.NotFound, "%s has no session of %s", h.name, m.id))
		return
	case s.waits != nil:
		w.answer(m, nil, errs.New(errs.Unavailable, "%s cannot be taken up yet: its keeper does not answer", m.id))
		return
	case !s.opened:
		w.answer(m, nil, errs.New(errs.Timeout, "it is just being opened"))
		return
	}
	s.heard = int(w.now / tick)
	switch m.action.Do {
	case drive.CutOver:
		err := s.CutOver(m.action.Epoch)
		s.mayFreeze = s.mayFreeze || err == nil
		w.answer(m, nil, err)
	case drive.Decide:
		h.decide(s, m, m.action.Verdict, m.action.Epoch)
	case drive.Confirm:
		h.confirm(s, m, m.action.Epoch)
	default:
		w.answer(m, s.now(), nil)
	}
}

func (s *session) now() *workerapi.SessionState {
	st := s.SessionState
	return &st
}

// open is Registry.Open.
func (h *host) open(m *message) {
	w := h.w
	src, dst := m.from.view.Migration.Source, m.from.view.Migration.Target
	boot := m.from.view.Migration.SourceBoot
	if m.action.Role == migration.Target {
		boot = m.from.view.Migration.TargetBoot
	}
	req := workerapi.OpenRequest{
		Boot:      boot,
		Migration: m.id, Role: m.action.Role, Epoch: m.action.Epoch, Spec: spec(), Options: m.from.view.Migration.Options,
		Source: workerapi.Peer{Host: src, Address: src + ":1"}, Target: workerapi.Peer{Host: dst, Address: dst + ":1"},
	}
	if s := h.session(m.id); s != nil {
		if !s.opened {
			w.answer(m, nil, errs.New(errs.Timeout, "it is just being opened"))
			return
		}
		w.answer(m, s.now(), nil)
		return
	}
	var busy migration.ID
	for _, s := range h.sessions {
		if !s.Ended() {
			busy = s.Migration
		}
	}
	if err := rules.MayOpen(req, strconv.Itoa(h.boot), h.seen, busy); err != nil {
		w.answer(m, nil, err)
		return
	}
	s := &session{Session: rules.New(req), h: h, req: req, heard: int(w.now / tick)}
	h.sessions = append(h.sessions, s)
	h.seen = max(h.seen, req.Epoch)
	s.act = &task{s: s, what: opening, prog: rules.Opening(req.Role), answer: m}
}

// decide is a verdict's arrival.
func (h *host) decide(s *session, m *message, v migration.Verdict, epoch migration.Epoch) {
	w := h.w
	if s.act != nil {
		w.answer(m, nil, errs.New(errs.Timeout, "it is acting"))
		return
	}
	p, err := s.Decide(v, epoch)
	if err != nil || len(p) == 0 {
		w.answer(m, s.now(), err)
		return
	}
	s.ruling = rules.Ruling{Verdict: v, Epoch: epoch}
	s.act = &task{s: s, what: deciding, prog: p, answer: m}
}

func (h *host) confirm(s *session, m *message, epoch migration.Epoch) {
	w := h.w
	if s.act != nil {
		w.answer(m, nil, errs.New(errs.Timeout, "it is acting"))
		return
	}
	p, err := s.Confirm(epoch)
	if err != nil || len(p) == 0 {
		w.answer(m, s.now(), err)
		return
	}
	s.act = &task{s: s, what: confirming, prog: p, answer: m}
}

// learn acts on what the record says, for a worker that asked.
func (h *host) learn(m *message) {
	s := h.session(m.id)
	if !h.serves() || s == nil || s.act != nil || !s.opened {
		return
	}
	v, epoch, confirmed := s.Learn(m.phase)
	if v == migration.Undecided {
		return
	}
	if s.Verdict == v && s.Ruled {
		if confirmed {
			h.confirm(s, m, epoch)
		}
		return
	}
	h.decide(s, m, v, epoch)
}

// step does a task's next op. An op that waits for somebody is not begun: blocked says so.
func (t *task) step() {
	s, h := t.s, t.s.h
	op := t.prog[t.pc]
	life := h.lives
	if h.w.atOp(t, op) || h.lives != life {
		return // its worker is no more
	}
	s.Begin(op)
	before := h.w.copies()
	err := h.w.failing(op)
	if err == nil {
		err = h.do(t, op)
	}
	if h.lives != life || errors.Is(err, errAgain) {
		return
	}
	if err == nil {
		s.Done(op, s.ruling.Verdict)
	}
	h.w.say(h.name+" "+string(s.Role), "%s%s", op, said(err))
	h.w.checkOp(s, op, err, before)
	if tells(op) && err == nil {
		h.w.tell(s)
	}
	t.advance(op, err)
}

func said(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

func (t *task) advance(op rules.Op, err error) {
	switch {
	case err == nil, t.all:
		t.pc++
	default:
		p, instead := t.s.Else(op, err)
		if instead {
			t.prog = append(append(append(rules.Program(nil), t.prog[:t.pc]...), p...), t.prog[t.pc+1:]...)
			break
		}
		t.err, t.failed, t.prog, t.pc, t.all = err, op, p, 0, true
	}
	for t.pc >= len(t.prog) {
		if !t.next() {
			return
		}
	}
}

// next goes on when a program has ended; false if the task has.
func (t *task) next() bool {
	s, h := t.s, t.s.h
	switch t.what {
	case working:
		if more := t.moreWork(); more != nil {
			t.prog, t.pc = more, 0
			return true
		}
		s.work = nil
		return false
	case opening:
		s.act = nil
		if t.err != nil {
			h.forget(s)
			h.w.answer(t.answer, nil, t.err)
			return false
		}
		s.opened = true
		s.work = &task{s: s, what: working, prog: rules.Receiving}
		if s.Role == migration.Source {
			s.work.prog = rules.Copying
		}
		h.w.answer(t.answer, s.now(), nil)
	case deciding, confirming:
		s.act = nil
		if t.err == nil {
			h.seen = max(h.seen, s.ruling.Epoch)
			h.w.answer(t.answer, s.now(), nil)
		} else {
			h.w.answer(t.answer, nil, t.err)
		}
	case takingUp:
		s.act = nil
		h.tookUp(t)
	case takingUpAgain:
		s.act = nil
		if t.err == nil || t.failed == rules.DropImages {
			s.again = nil
		}
	case watching:
		s.act = nil
		if t.then != nil && t.err == nil {
			t.then()
		}
	}
	return false
}

// moreWork is what a session's work goes on with after a program, nil if it is over.
func (t *task) moreWork() rules.Program {
	s := t.s
	switch {
	case t.gaveUp:
		return nil
	case t.err != nil:
		t.gaveUp, t.all = true, true
		return s.WorkFailed()
	case s.Role == migration.Target && s.Step == workerapi.StepStaged:
		return rules.Rebuilding
	case s.Role == migration.Source && s.Step == workerapi.StepReady:
		return rules.Freezing
	case s.Role == migration.Source && s.Step == workerapi.StepFrozen:
		return rules.Staging
	}
	return nil
}

// blocked says whether a task's next op waits for somebody.
func (t *task) blocked() bool {
	s := t.s
	switch t.prog[t.pc] {
	case rules.Copy:
		return s.Step == workerapi.StepReady && !s.mayFreeze && !s.cancelled
	case rules.Receive:
		return !s.lastWord && !s.cancelled
	case rules.Finish:
		return s.sent && !s.acked && !s.cancelled
	case rules.EndWork, rules.AwaitWork:
		return s.work != nil && (t.prog[t.pc] == rules.AwaitWork || s.cancelled)
	}
	return false
}

func tells(op rules.Op) bool { return op >= rules.TellOpen && op <= rules.TellFailed }

func (h *host) forget(s *session) {
	for i, o := range h.sessions {
		if o == s {
			h.sessions = append(h.sessions[:i], h.sessions[i+1:]...)
			return
		}
	}
}
