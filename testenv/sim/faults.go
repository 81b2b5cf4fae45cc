package sim

import (
	"time"

	"drover/coordinator/record"
	"drover/internal/migration"
	"drover/internal/safety"
	workerapi "drover/worker/api"
	"drover/worker/session/rules"
)

// atOp may end somebody just before an op, or within it; true if the op's worker is no more.
func (w *world) atOp(t *task, op rules.Op) bool {
	if !w.chance(w.faults) {
		return false
	}
	h := t.s.h
	switch w.draw(6) {
	case 0, 1:
		w.cover.op(op, before)
		w.hitHost(workerDied, h)
		w.say(h.name, "the worker dies before %q", op)
		h.workerDies()
	case 2:
		w.cover.op(op, within)
		w.within(t, op)
	case 3:
		w.keeperDies(h)
		return false
	case 4:
		w.criuDies(h)
		return false
	default:
		w.cover.op(op, hostDied)
		w.hostDies(h)
	}
	return true
}

// within ends a worker in the middle of an op: the op has been done, or half of it, and nobody hears of it.
func (w *world) within(t *task, op rules.Op) {
	h, s := t.s.h, t.s
	w.hitHost(workerDied, h)
	if op.Writes() && op != rules.AwaitFrozen && op != rules.WriteFrozen {
		keep := h.journal
		_ = h.record(s, op) // what would have been written
		if n := len(keep); len(h.journal) > n && w.draw(2) == 1 {
			r := h.journal[n]
			h.journal = h.journal[:n]
			h.tear(r)
			w.hitHost(tornJournal, h)
		}
	} else {
		before := w.copies()
		s.Begin(op)
		err := h.do(t, op)
		if err == nil {
			s.Done(op, s.ruling.Verdict)
		}
		w.checkOp(s, op, err, before)
	}
	w.say(h.name, "the worker dies within %q", op)
	h.workerDies()
}

// failing is an op's failure that is nobody's death: a full disk, a kernel that refuses.
func (w *world) failing(op rules.Op) error {
	if tells(op) || op == rules.Deny || op == rules.Mourn || op == rules.EndWork || op == rules.AwaitWork || !w.chance(w.faults/2) {
		return nil
	}
	w.cover.op(op, failed)
	return errBroken
}

// strike ends something somewhere.
func (w *world) strike() {
	h := w.hosts[w.draw(3)]
	switch w.draw(9) {
	case 0, 1:
		if h.worker {
			w.hitHost(workerDied, h)
			w.say(h.name, "the worker dies")
			h.workerDies()
		}
	case 2:
		w.keeperDies(h)
	case 3:
		w.criuDies(h)
	case 4:
		w.fillerDies(h)
	case 5:
		if h.up {
			w.hostDies(h)
		}
	case 6:
		w.treeDies(h)
	case 8:
		if h.place.keeper {
			h.place.mute = true
			w.say(h.name, "its keeper is stopped")
		}
	default:
		if h.serves() && w.chance(300) {
			h.full = true
			w.hitHost(journalFull, h)
			w.say(h.name, "its disk is full")
		}
	}
}

// upset is about leaders, messages and clocks.
func (w *world) upset() {
	switch w.draw(7) {
	case 0:
		w.hit(leaderDied)
		w.depose(true)
	case 1:
		w.hit(leaderDeposed)
		w.depose(false)
	case 2:
		w.operatorAborts()
	case 3:
		d := time.Duration([]int{3, 7, 12, 40, 700}[w.draw(5)]) * time.Second
		w.hit(clockJumped)
		w.say("", "%s pass", d)
		w.now += d
		w.pass(0)
	case 4:
		w.lead.skew += time.Duration(w.draw(120)-60) * time.Second
		w.hit(clockSkewed)
		w.jumped = true
		w.say(w.lead.name(), "its clock is off by %s", w.lead.skew)
	default:
		w.loseOne()
	}
}

// talk lets those speak who do at times of their own.
func (w *world) talk() {
	switch w.draw(4) {
	case 0:
		w.heartbeat(w.hosts[w.draw(3)])
	case 1:
		w.askVerdicts(w.hosts[w.draw(3)])
	case 2:
		w.comeBack(1000)
	default:
		for _, l := range w.old {
			if !l.gone {
				w.hit(staleLeader)
				l.act()
			}
		}
		if len(w.old) > 0 && w.draw(3) == 1 {
			w.old[0].gone = true
			w.old = w.old[1:]
		}
	}
}

// comeBack starts again what is down, so many times of a thousand.
func (w *world) comeBack(perMille int) {
	for _, h := range w.hosts {
		if !h.worker && w.chance(perMille*8) {
			h.workerStarts()
		}
	}
}

// loseOne drops or repeats a message.
func (w *world) loseOne() {
	if len(w.net) == 0 {
		return
	}
	i := w.draw(len(w.net))
	m := w.net[i]
	if w.draw(3) == 1 {
		if m.kind != propose { // a command that comes twice has one id, and acts once: record's own test
			again := *m
			w.send(&again)
			w.hit(repeated)
			w.say("", "%s of %s is repeated", m.kind, m.action.Do)
		}
		return
	}
	w.hit(dropped)
	w.say("", "%s of %s is lost", m.kind, m.action.Do)
	w.drop(i)
}

// reorder lets a message arrive before older ones.
func (w *world) reorder() {
	if len(w.net) < 2 {
		return
	}
	i := 1 + w.draw(len(w.net)-1)
	m := w.net[i]
	w.net = append(w.net[:i], w.net[i+1:]...)
	w.hit(reordered)
	w.deliver(m)
}

// blow begins what takes something from a host's copy; struck is to be called when it has been taken.
func (w *world) blow(f hostFault, h *host, what string) (struck func()) {
	w.hitHost(f, h)
	w.say(h.name, "%s", what)
	h.struck = true
	before := w.copies()
	return func() {
		w.checkCopies()
		w.checkStruck(before, what)
	}
}

func (w *world) keeperDies(h *host) {
	p := &h.place
	if !p.keeper {
		return
	}
	defer w.blow(keeperDied, h, "the keeper dies")()
	if k := p.hold; k != nil {
		k.criu = false
	}
	p.keeper, p.mute, p.hold = false, false, nil
	if t := p.tree; t != nil {
		w.finished = w.finished && t.alive // nobody saw how it ended
		t.seized = false
		if !t.filled && !t.filler && t.runs() {
			t.zeros = true // nobody was left to kill it before it could see them
		}
	}
	if h.worker && (p.state == running || p.state == migrating) {
		p.keeper = true // follow starts another
	}
}

func (w *world) criuDies(h *host) {
	k := h.place.hold
	if k == nil || !k.criu {
		return
	}
	defer w.blow(criuDied, h, "CRIU dies")()
	k.criu = false
	if t := h.place.tree; t != nil {
		t.seized = false
	}
}

// fillerDies ends what fills in memory; the keeper then kills a tree that may run.
func (w *world) fillerDies(h *host) {
	t := h.place.tree
	if t == nil || !t.filler {
		return
	}
	defer w.blow(fillerDied, h, "what fills in the memory dies")()
	t.filler = false
	if t.alive && !t.asleep {
		if h.place.keeper && h.place.hold != nil {
			t.alive, t.signal = false, 9
			h.bury()
		} else {
			t.zeros = true
		}
	}
}

func (w *world) hostDies(h *host) {
	if !h.up {
		return
	}
	defer w.blow(hostGone, h, "the host goes down")()
	h.fell = true
	w.finished = w.finished && h.place.tree == nil
	h.goesDown()
}

// excuseLoss says whether a host that goes down may take the workload with it: it was the owner's, and nobody had another copy to go on with, or
// was still to decide.
func (w *world) excuseLoss(h *host) {
	if !h.place.whole() {
		return
	}
	wl := w.state.Workloads[name]
	m, moving := w.move()
	after := moving && wl.Migration == m.ID && m.Verdict() == migration.Commit
	if h.name == wl.Owner && (!after || m.ProbationOver || w.mayBeOver(m)) {
		w.excuse = "its host went down"
	}
}

// checkStruck looks at what a blow has taken: if it was the last whole copy, another must have come together with it, for one alone never costs a
// tree but by its host's death.
func (w *world) checkStruck(before seen, what string) {
	now := w.copies()
	if safety.Kept(before.list(), now.list()) == nil {
		return
	}
	switch {
	case w.excuse != "":
	case w.bothStruck():
		w.excuse = "both hosts were struck"
	default:
		w.breaks("the last whole copy was lost, and no more had happened than that %s", what)
	}
}

// bothStruck says whether the two blows have come together against which there is no help: between COMMIT and the end of probation the source's host has
// gone down, and something was taken from the target's copy.
func (w *world) bothStruck() bool {
	m, _ := w.move()
	return m.Verdict() == migration.Commit && !m.ProbationOver && w.hostOf(m.Source).fell && w.hostOf(m.Target).struck
}

// mayBeOver says whether a leader may already have seen enough to end probation: probation is time, by the leader's clock.
func (w *world) mayBeOver(m record.Migration) bool {
	if m.Phase != migration.Released { // if the clock falls back before that is noted, what the target has answered already counts as said after the end
		return w.jumped
	}
	end := m.Entered(migration.Released).Add(2 * time.Second)
	return !w.latest.Before(end)
}

// treeDies ends a tree that runs: by itself, or by a signal.
func (w *world) treeDies(h *host) {
	t := h.place.tree
	if t == nil || !t.runs() || !w.chance(400) {
		return
	}
	w.hitHost(treeDied, h)
	t.alive = false
	if w.draw(2) == 1 {
		t.signal = 11
		w.excuse = "it crashed"
		w.say(h.name, "the tree crashes")
	} else {
		w.excuse, w.finished = "it has ended by itself", h.place.role == "" || h.place.hold != nil // else its keeper has died: nobody can say how it ended
		w.say(h.name, "the tree ends by itself")
	}
	h.bury()
}

// operatorAborts is drover abort.
func (w *world) operatorAborts() {
	m, ok := w.move()
	if !ok {
		return
	}
	was := w.where()
	if w.apply(w.lead, record.Step{Migration: m.ID, From: m.Phase, Epoch: m.Epoch, Events: []migration.Event{migration.EvAbort}, Reason: "asked to"}) == nil { // it is the record that refuses one that comes late
		w.hitIn(was, aborted)
		w.say("operator", "aborts %s", m.ID)
		w.lead.act()
	}
}

// mend ends chaos: whatever is down comes back, deposed leaders learn of it, disks have room.
func (w *world) mend() {
	w.calm = true
	w.say("", "all is mended")
	for _, l := range w.old {
		l.gone = true
	}
	w.old = nil
	for _, h := range w.hosts {
		if h.full {
			h.workerDies()
		}
		h.workerStarts()
	}
	w.lead.skew = 0
	w.lead.act()
}

// where is how far the newest migration has come, by what its hosts have reached: the record keeps STAGED and HELD together with the verdict.
func (w *world) where() migration.Phase {
	m, ok := w.move()
	if !ok || m.Phase != migration.Frozen {
		return m.Phase
	}
	if s := w.hostOf(m.Target).session(m.ID); s != nil {
		switch s.Step {
		case workerapi.StepStaged:
			return migration.Staged
		case workerapi.StepHeld:
			return migration.Held
		}
	}
	return m.Phase
}
