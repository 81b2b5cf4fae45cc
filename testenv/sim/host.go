package sim

import (
	"strconv"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	"drover/worker/journal"
	"drover/worker/session/rules"
)

// What a host remembers of the workload, as worker/workloads' record of it.
type presence string

const (
	running   presence = "running"
	migrating presence = "migrating"
	reserved  presence = "reserved"
	fenced    presence = "fenced"
	exited    presence = "exited"
	gone      presence = "gone" // only the epoch is remembered
)

// place is what is on a host of the workload: its record on the disk, its keeper, its tree.
type place struct {
	state  presence
	epoch  migration.Epoch
	id     migration.ID // whose it is
	role   migration.Role
	boot   int
	tree   *tree
	keeper bool // lives
	mute   bool // but is stopped: a worker that starts cannot ask it
	hold   *hold
}

// tree is one copy: processes in a cgroup.
type tree struct {
	alive   bool
	frozen  bool // by its cgroup
	seized  bool // by CRIU, which dumps or holds a dump
	asleep  bool // rebuilt, waits for CRIU's last word; for ever, if CRIU dies
	stopped bool // by SIGSTOP, as its final state
	fenced  bool
	filled  bool // all of its memory is in place
	filler  bool // somebody fills in the rest
	zeros   bool // it has run, or may, with pages missing
	signal  int  // that ended it
}

func (t *tree) runs() bool {
	return t.alive && !t.frozen && !t.seized && !t.asleep && !t.stopped
}

// whole says whether the place's copy can run with all that it had. One that waits for a CRIU that has died never will.
func (p *place) whole() bool {
	t := p.tree
	return t != nil && t.alive && !t.zeros && (t.filled || t.filler) && (!t.asleep || p.hold != nil && p.hold.criu)
}

// hold is what a keeper keeps for whoever ends it.
type hold struct {
	restore bool
	criu    bool // lives
	decided migration.Verdict
}

// host is a machine, with a worker.
type host struct {
	w     *world
	index int
	name  string
	up    bool
	boot  int
	lazy  bool // trees are rebuilt before their memory is in place
	skew  time.Duration
	place place

	struck bool // something was taken from its copy since the last move began
	fell   bool // it has gone down since then

	journal []journal.Record
	late    *journal.Record // being written beside other things
	torn    []byte          // an unfinished line at the end
	full    bool            // the disk is: the journal takes nothing until the worker starts again

	worker   bool
	ready    bool // it has taken up its sessions
	lives    int  // of the worker
	sessions []*session
	pasts    []*rules.Past // to be taken up
	seen     migration.Epoch
	most     migration.Epoch // that its place has had
}

func (h *host) clock() time.Time { return begin.Add(h.w.now + h.skew) }

// write appends a record; it is on the disk when this returns nil.
func (h *host) write(r journal.Record) error {
	h.flush()
	if h.full {
		return errFull
	}
	r.Seq, r.Time = uint64(len(h.journal))+1, h.clock()
	h.journal = append(h.journal, r)
	return nil
}

// flush ends a write that was under way: the journal is one file, with one writer.
func (h *host) flush() {
	if r := h.late; r != nil {
		h.late = nil
		if !h.full {
			r.Seq, r.Time = uint64(len(h.journal))+1, h.clock()
			h.journal = append(h.journal, *r)
		}
	}
}

// tear leaves the beginning of a record at the journal's end, as a crash within a write does.
func (h *host) tear(r journal.Record) {
	r.Seq, r.Time = uint64(len(h.journal))+1, h.clock()
	line, err := journal.Encode(r)
	if err != nil {
		return
	}
	n := h.w.draw(len(line)) // at 0 nothing was written
	h.torn = line[:n]
	if n > 0 && h.w.draw(2) == 1 {
		h.torn = append(append([]byte(nil), line[:n]...), '\n') // blocks reach a disk in any order
	}
	h.w.say(h.name, "%d bytes of %q are in the journal", n, r.Step)
}

// workerDies ends the worker; what the keeper and the kernel have stays.
func (h *host) workerDies() {
	if !h.worker {
		return
	}
	for _, s := range h.sessions {
		if s.act != nil { // who waits for it hears that the connection has broken
			h.w.answer(s.act.answer, nil, errs.New(errs.Unavailable, "host %s has gone away", h.name))
		}
	}
	h.worker, h.ready, h.sessions, h.pasts, h.full = false, false, nil, nil, false
	h.lives++
	if r := h.late; r != nil {
		switch h.w.draw(3) {
		case 0:
			h.flush()
		case 1:
			h.late = nil
			h.tear(*r)
		default:
			h.late = nil
		}
	}
}

// goesDown takes the host and all that lives on it.
func (h *host) goesDown() {
	h.workerDies()
	h.w.excuseLoss(h)
	h.up = false
	h.place.tree, h.place.keeper, h.place.mute, h.place.hold = nil, false, false, nil
}

// workerStarts starts the worker again, on a host that is up, or comes up.
func (h *host) workerStarts() {
	if h.worker {
		return
	}
	if !h.up {
		h.up = true
		h.boot++
	}
	h.worker = true
	h.lives++
	h.w.say(h.name, "the worker starts, boot %d", h.boot)
	h.meetAgain()
	h.seen = 0
	records, err := h.load()
	if err == nil {
		h.pasts, err = rules.Replay(records)
	}
	if err != nil {
		h.w.breaks("the journal of %s cannot be read: %v", h.name, err)
		return
	}
	h.takeUpNext()
}

// load reads the journal as a worker does that starts.
func (h *host) load() ([]journal.Record, error) {
	if len(h.torn) == 0 {
		return h.journal, nil
	}
	var raw []byte
	for _, r := range h.journal {
		line, err := journal.Encode(r)
		if err != nil {
			return nil, err
		}
		raw = append(raw, line...)
	}
	got, err := journal.Parse(append(raw, h.torn...))
	h.torn, h.journal = nil, got.Records
	return got.Records, err
}

// meetAgain is worker/workloads' look at what became of the workload meanwhile.
func (h *host) meetAgain() {
	p := &h.place
	switch {
	case p.state == gone || p.state == "" || p.state == exited:
	case p.boot != h.boot && p.state == reserved:
		*p = place{state: gone, epoch: p.epoch}
	case p.boot != h.boot:
		p.state, p.id, p.role = exited, "", ""
	default:
		p.keeper = true // still there, or again
		h.bury()
	}
}

// takeUpNext takes up the next of the journal's sessions. One whose keeper does not answer keeps no other waiting.
func (h *host) takeUpNext() {
	if len(h.pasts) == 0 {
		h.ready = true
		return
	}
	p := h.pasts[0]
	h.pasts = h.pasts[1:]
	s := &session{Session: rules.New(p.Req), h: h, req: p.Req, heard: -100}
	h.seen = max(h.seen, p.Req.Epoch, p.Ruling.Epoch)
	h.sessions = append(h.sessions, s)
	if h.finds(p) && h.place.mute {
		h.w.hitHost(keeperMute, h)
		h.w.say(h.name, "cannot take up %s: its keeper does not answer", p.Req.Migration)
		s.waits = p
		h.takeUpNext()
		return
	}
	h.takeUp(s, p)
	s.act.after = h.takeUpNext
}

// finds says whether there is anything here that the session of a past is to be taken up with.
func (h *host) finds(p *rules.Past) bool {
	return h.place.id == p.Req.Migration && h.place.role == p.Req.Role && p.Over() == ""
}

// takeUp takes up a session of which it can be said what is here.
func (h *host) takeUp(s *session, p *rules.Past) {
	var found rules.Found
	if h.finds(p) {
		h.place.keeper = true // who asks it starts it, if need be
		found.Tree = true
		if k := h.place.hold; k != nil && k.restore == (p.Req.Role == migration.Target) {
			found.Hold, s.hold = true, k
		}
	}
	up := rules.TakeUp(p, found)
	s.Session = up.Session
	if t := h.place.tree; found.Tree && s.Role == migration.Target && t != nil && !t.filled && t.alive {
		s.Filling = fillingNow
	}
	if s.Role == migration.Source && s.Holds && s.FrozenAt.IsZero() {
		s.Frozen(h.clock())
	}
	s.ruling = rules.Ruling{}
	s.act = &task{s: s, what: takingUp, prog: up.Program, first: up.Program, all: s.Role == migration.Target || !found.Tree}
	s.act.then = func() {
		if p.Over() == "" && p.Ruling.Verdict != migration.Undecided && !s.Ruled {
			h.decide(s, nil, p.Ruling.Verdict, p.Ruling.Epoch)
		}
	}
	h.w.say(h.name, "takes up %s as %s: hold %v %s", s.Migration, s.Role, found.Hold, up.Why)
}

// tookUp goes on after a session has been taken up.
func (h *host) tookUp(t *task) {
	if t.err != nil {
		if t.failed != rules.DropImages {
			t.s.again = t.first
		}
		t.s.Done(rules.TellFailed, t.s.ruling.Verdict)
		h.w.tell(t.s)
	}
	t.s.opened, t.s.waits = true, nil
	t.then()
	if t.after != nil {
		t.after()
	}
}

// takeUpAgain takes up sessions whose keepers did not answer, and tries again what has failed when one was taken up, as worker/session's untilOver.
func (h *host) takeUpAgain() {
	if !h.serves() {
		return
	}
	for _, s := range h.sessions {
		if s.waits != nil && s.act == nil {
			if h.place.mute = h.place.mute && h.w.draw(3) != 0; !h.place.mute {
				h.takeUp(s, s.waits)
			}
		}
		if s.again == nil || s.act != nil {
			continue
		}
		if p := s.Again(s.again); len(p) > 0 {
			s.act = &task{s: s, what: takingUpAgain, prog: p}
		} else {
			s.again = nil
		}
	}
}

// heartbeat tells the leader of the host's boot, its sessions and its workload's end.
func (w *world) heartbeat(h *host) {
	if !h.serves() || w.lead.gone {
		return
	}
	l := w.lead
	l.boots[h.index] = strconv.Itoa(h.boot)
	w.news(h)
	w.strays(h)
}
