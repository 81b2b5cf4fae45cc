package sim

import (
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session/rules"
)

var (
	errFull    = errs.New(errs.Failed, "no space left on device")
	errBroken  = errs.New(errs.Failed, "it failed")
	errAgain   = errs.New(errs.Unavailable, "waits") // the op has begun, and goes on when blocked says so
	zero       time.Time
	fillingNow = &workerapi.Filling{Done: 1, All: 2}
)

// do is what an op does to a host: worker/session's acts, worker/workloads' places, the keeper and CRIU, as far as the protocol sees them.
func (h *host) do(t *task, op rules.Op) error {
	s := t.s
	switch {
	case op == rules.WriteFrozen:
		r, err := op.Record(s.Migration, rules.Frozen{At: s.FrozenAt})
		h.flush()
		h.late = &r
		return err
	case op == rules.AwaitFrozen:
		h.flush()
		if h.full {
			return errFull
		}
		return nil
	case op.Writes():
		return h.record(s, op)
	case tells(op):
		if op == rules.TellReleased {
			s.settledBy = true
		}
		return nil
	}
	switch op {
	case rules.EndWork:
		if s.work != nil {
			s.cancelled = true
			return errAgain
		}
	case rules.AwaitWork, rules.DropImages, rules.Mourn, rules.StopCopying, rules.Connect, rules.SendRest:
	case rules.Deny:
		return errs.New(errs.Failed, "it cannot be released: %w", engine.ErrLost)
	default:
		if s.Role == migration.Source {
			return h.actSource(s, op)
		}
		return h.actTarget(s, op)
	}
	return nil
}

// record writes an op's record, with what worker/session puts into it.
func (h *host) record(s *session, op rules.Op) error {
	var data any
	switch op {
	case rules.WriteOpen:
		data = s.req
	case rules.WriteVerdict, rules.WriteRuled:
		data = s.ruling
	case rules.WriteEnded:
		data = rules.Ruling{Verdict: migration.Abort, Epoch: s.req.Epoch}
	case rules.WriteHeld:
		data = rules.Held{Pid: 1}
	}
	r, err := op.Record(s.Migration, data)
	if err != nil {
		return err
	}
	return h.write(r)
}

// mine says whether the place is that session's.
func (h *host) mine(s *session) bool { return h.place.id == s.Migration && h.place.role == s.Role }

func (h *host) actSource(s *session, op rules.Op) error {
	p := &h.place
	t := p.tree
	if t == nil {
		t = &tree{} // acts on nothing succeed
	}
	switch op {
	case rules.Lend:
		return h.lend(s)
	case rules.Copy:
		switch {
		case s.cancelled:
			return errs.New(errs.Aborted, "cancelled")
		case !t.alive:
			return errs.New(errs.Failed, "round: %w", engine.ErrGone)
		case s.Step != workerapi.StepReady:
			s.Step = workerapi.StepReady
			h.w.tell(s)
			return errAgain
		}
	case rules.Dump:
		return h.dump(s, t)
	case rules.Finish:
		switch {
		case s.cancelled:
			return errs.New(errs.Aborted, "cancelled")
		case !s.sent:
			s.sent = true
			h.w.send(&message{kind: lastWord, to: h.w.hostOf(s.req.Target.Host), id: s.Migration})
			return errAgain
		}
	case rules.AnswerNo:
		return h.answerNo(s, t)
	case rules.Freeze:
		t.frozen = true
	case rules.Thaw:
		t.frozen = false
	case rules.Fence:
		t.fenced = true
	case rules.Unfence:
		t.fenced = false
	case rules.Return:
		return h.giveBack(s, t)
	case rules.EndTree:
		return h.endTree(s, t)
	case rules.Kill:
		t.alive = false
	case rules.Leave:
		h.leave(s, t)
	}
	return nil
}

// lend is workloads' Lend.
func (h *host) lend(s *session) error {
	p := &h.place
	switch {
	case s.req.Epoch < p.epoch:
		return errs.New(errs.Conflict, "out of date")
	case h.mine(s):
	case p.state != running:
		return errs.New(errs.Conflict, "there is no tree to move")
	default:
		p.state, p.id, p.role, p.epoch = migrating, s.Migration, s.Role, s.req.Epoch
	}
	if k := p.hold; k != nil && !k.restore {
		s.hold, s.Holds = k, true
	}
	return nil
}

// dump freezes the tree, writes it and holds it: by CRIU and by its cgroup.
func (h *host) dump(s *session, t *tree) error {
	p := &h.place
	if !t.alive || t.frozen || !p.keeper || s.cancelled {
		return errs.New(errs.Failed, "dump: %w", engine.ErrGone)
	}
	s.Frozen(h.clock())
	t.fenced = true
	if h.w.chance(h.w.faults) { // CRIU undoes it
		h.w.hit(dumpUndone)
		s.Frozen(zero)
		return errBroken
	}
	t.frozen, t.seized = true, true
	p.hold = &hold{criu: true}
	s.hold = p.hold
	return nil
}

// answerNo is keeper.Client's Abort of a dump's hold.
func (h *host) answerNo(s *session, t *tree) error {
	k := s.hold
	if k == nil {
		return nil
	}
	if h.place.hold != k || !h.place.keeper { // the keeper that had it has died
		t.frozen = false
		return nil
	}
	if k.decided == migration.Commit {
		return errs.New(errs.Conflict, "abort: %w", engine.ErrDecided)
	}
	k.decided, k.criu = migration.Abort, false
	t.seized, t.frozen = false, false
	return nil
}

// giveBack is workloads' Return.
func (h *host) giveBack(s *session, t *tree) error {
	p := &h.place
	if !h.mine(s) {
		return nil
	}
	epoch := max(s.ruling.Epoch, s.req.Epoch)
	if epoch < p.epoch {
		return errs.New(errs.Conflict, "out of date")
	}
	p.state, p.id, p.role, p.epoch, p.hold = running, "", "", epoch, nil
	t.fenced, t.frozen = false, false
	h.bury()
	return nil
}

// endTree is the hold's Commit on a source: the tree gets its final state.
func (h *host) endTree(s *session, t *tree) error {
	k := s.hold
	if k == nil || h.place.hold != k || !h.place.keeper || !k.criu && k.decided == migration.Undecided {
		return errs.New(errs.Failed, "commit: %w", engine.ErrLost)
	}
	if k.decided == migration.Abort {
		return errs.New(errs.Conflict, "commit: %w", engine.ErrDecided)
	}
	k.decided, k.criu = migration.Commit, false
	t.seized, t.frozen = false, false
	if s.Final == migration.Dead {
		t.alive = false
	} else {
		t.stopped = true
	}
	return nil
}

// leave is workloads' Leave.
func (h *host) leave(s *session, t *tree) {
	p := &h.place
	if !h.mine(s) {
		return
	}
	if s.Final == migration.Stopped && t.alive {
		t.fenced, t.stopped, t.frozen = true, true, false
		p.state, p.id, p.role, p.hold = fenced, "", "", nil
		p.epoch++
		return
	}
	*p = place{state: gone, epoch: p.epoch + 1}
}

func (h *host) actTarget(s *session, op rules.Op) error {
	p := &h.place
	t := p.tree
	if t == nil || !h.mine(s) {
		t = &tree{}
	}
	switch op {
	case rules.Reserve:
		return h.reserve(s)
	case rules.Receive:
		if s.cancelled {
			return errs.New(errs.Aborted, "cancelled")
		}
		src := h.w.hostOf(s.req.Source.Host)
		h.w.send(&message{kind: received, to: src, id: s.Migration, boot: src.lives})
	case rules.Restore:
		if s.cancelled || !p.keeper || p.tree != nil {
			return errBroken
		}
		p.tree = &tree{alive: true, asleep: true, fenced: true, filled: !h.lazy, filler: h.lazy}
		p.hold = &hold{restore: true, criu: true}
		if s.hold = p.hold; h.lazy {
			s.Filling = fillingNow
		}
	case rules.VouchFor:
		if !t.filled && !t.filler {
			return errs.New(errs.Failed, "what fills in the memory has died")
		}
	case rules.LetRun:
		return h.letRun(s, t)
	case rules.Accept:
		return h.accept(s, t)
	case rules.SeeAlive:
		if !t.alive {
			s.Passed(t.signal)
		}
	case rules.Refuse:
		h.refuse(s, t)
	case rules.Discard:
		if h.mine(s) {
			*p = place{state: gone, epoch: p.epoch}
		}
		s.settledBy = true
		s.Filling = nil
	case rules.Kill:
		t.alive, t.signal = false, 9
	}
	return nil
}

// reserve is workloads' Reserve.
func (h *host) reserve(s *session) error {
	p := &h.place
	switch {
	case h.mine(s):
		return nil
	case s.req.Epoch < p.epoch:
		return errs.New(errs.Conflict, "out of date")
	case p.state == running || p.state == migrating || p.state == reserved || p.state == fenced:
		return errs.New(errs.Conflict, "there is a tree here")
	}
	*p = place{state: reserved, epoch: s.req.Epoch, id: s.Migration, role: s.Role, boot: h.boot, keeper: true}
	return nil
}

// letRun is the hold's Commit on a target: CRIU lets go of the tree, if what fills in its memory still can.
func (h *host) letRun(s *session, t *tree) error {
	k := s.hold
	switch {
	case k == nil || h.place.hold != k || !h.place.keeper:
		return errs.New(errs.Failed, "the keeper has died: %w", engine.ErrLost)
	case k.decided == migration.Commit:
		return nil
	case k.decided == migration.Abort:
		return errs.New(errs.Conflict, "commit: %w", engine.ErrDecided)
	case !k.criu, !t.filled && !t.filler:
		return errs.New(errs.Failed, "commit: %w", engine.ErrLost)
	}
	k.decided, k.criu = migration.Commit, false
	t.asleep = false
	if s.Final == migration.Stopped {
		t.stopped = true
	}
	return nil
}

// accept is workloads' Accept: it asks the keeper for the root.
func (h *host) accept(s *session, t *tree) error {
	p := &h.place
	epoch := rules.Brings(migration.Commit, s.req.Epoch)
	switch {
	case !h.mine(s):
		return errs.New(errs.Conflict, "there is no place for it any more")
	case epoch < p.epoch:
		return errs.New(errs.Conflict, "out of date")
	case p.state == reserved && !p.keeper:
		return errs.New(errs.Unavailable, "there is no keeper")
	case p.state == reserved:
		p.state, p.epoch = running, epoch
	}
	t.fenced = false
	h.bury()
	return nil
}

// refuse is the hold's Abort on a target, as far as it goes.
func (h *host) refuse(s *session, t *tree) {
	s.settledBy = true
	k := s.hold
	if k == nil || k.decided == migration.Commit && h.place.keeper && h.place.hold == k {
		return
	}
	if k.decided == migration.Undecided {
		k.decided, k.criu = migration.Abort, false
	}
	if t.alive {
		t.alive, t.signal = false, 9
	}
}

// bury notes that a tree of this host's own has ended.
func (h *host) bury() {
	p := &h.place
	if p.state == running && (p.tree == nil || !p.tree.alive) && (p.id == "" || p.role == migration.Target) {
		p.state = exited
	}
}
