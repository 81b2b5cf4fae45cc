package sim

import (
	"strconv"
	"time"

	"drover/coordinator/drive"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
)

// leader is a coordinator that leads, or that has been deposed and does not know it.
type leader struct {
	w       *world
	id      int
	skew    time.Duration
	state   *record.State // the log's own; a deposed leader's ends where it was deposed
	gone    bool          // it has died, or learned that another leads
	boots   [3]string     // as hosts have said
	drivers []*driver
}

// driver is one migration's, as drive.driver.
type driver struct {
	lead  *leader
	id    migration.ID
	view  drive.View
	slots []*slot
	over  bool
}

// slot holds the call under way of one sort, as drive.slot.
type slot struct {
	name  string
	busy  bool
	doing drive.Action
	call  int // its number: another call's answer is not this one's
	retry time.Duration
}

const retryAfter = 300 * time.Millisecond

func (w *world) newLeader(id int) *leader {
	l := &leader{w: w, id: id, state: w.state, skew: time.Duration(w.draw(3)) * 3 * time.Second}
	for i, h := range w.hosts {
		if h.up && h.worker {
			l.boots[i] = strconv.Itoa(h.boot)
		}
	}
	return l
}

func (l *leader) clock() time.Time {
	now := begin.Add(l.w.now + l.skew)
	if now.After(l.w.latest) {
		l.w.latest = now
	}
	return now
}

func (l *leader) name() string { return "leader" + strconv.Itoa(l.id) }

func (l *leader) boot(host string) string { return l.boots[l.w.hostOf(host).index] }

// act has a driver for each migration that is under way, and each do what it wants.
func (l *leader) act() {
	for i := 1; i <= l.w.moves; i++ {
		id := migration.ID("m" + strconv.Itoa(i))
		m, ok := l.state.Migrations[id]
		if !ok || m.Phase.Final() || l.driver(id) != nil {
			continue
		}
		l.drivers = append(l.drivers, &driver{lead: l, id: id})
	}
	for _, d := range l.drivers {
		d.act()
	}
}

func (l *leader) driver(id migration.ID) *driver {
	for _, d := range l.drivers {
		if d.id == id {
			return d
		}
	}
	return nil
}

// act starts what drive.Next asks for and is not under way.
func (d *driver) act() {
	l, w := d.lead, d.lead.w
	if l.gone || d.over || w.broken != nil {
		return
	}
	if !d.view.Refresh(l.state, d.id, l.boot, l.clock()) || d.view.Migration.Phase.Final() {
		d.over = true
		return
	}
	var wanted [8]drive.Action
	n := 0
next:
	for _, a := range drive.Next(d.view) {
		if a.Do == drive.Wake {
			continue // time passes when nothing else happens, and everybody looks then
		}
		for _, b := range wanted[:n] {
			if a.Slot() == b.Slot() {
				continue next
			}
		}
		if n < len(wanted) {
			wanted[n] = a
			n++
		}
	}
	for _, s := range d.slots {
		keep := false
		for _, a := range wanted[:n] {
			keep = keep || a.Slot() == s.name && s.doing.Same(a)
		}
		if s.busy && !keep && s.doing.Do != drive.Record {
			s.busy, s.call = false, 0 // cancelled: what it still brings is heard, its failure is not
		}
	}
	for _, a := range wanted[:n] {
		s := d.slot(a.Slot())
		if s.busy || s.doing.Same(a) && w.now < s.retry {
			continue
		}
		d.start(s, a)
	}
}

func (d *driver) slot(name string) *slot {
	for _, s := range d.slots {
		if s.name == name {
			return s
		}
	}
	s := &slot{name: name}
	d.slots = append(d.slots, s)
	return s
}

func (d *driver) start(s *slot, a drive.Action) {
	w := d.lead.w
	w.ids++
	if a.Do == drive.Look {
		a.At = d.lead.clock()
	}
	s.busy, s.doing, s.call, s.retry = true, a, w.ids, 0
	if a.Do == drive.Record {
		w.send(&message{kind: propose, from: d, action: a, call: w.ids})
		return
	}
	host := d.view.Source.Host
	if a.Role == migration.Target {
		host = d.view.Target.Host
	}
	w.say(d.lead.name(), "%s: %s%s %s", d.id, a.Do, verdictOf(a), host)
	w.send(&message{kind: call, from: d, to: w.hostOf(host), id: d.id, action: a, call: w.ids})
}

func verdictOf(a drive.Action) string {
	if a.Verdict == migration.Undecided {
		return ""
	}
	return " " + string(a.Verdict) + "@" + a.Epoch.String()
}

// answered takes in what came of a call.
func (d *driver) answered(m *message) {
	if d.lead.gone {
		return
	}
	w := d.lead.w
	s := d.slot(m.action.Slot())
	mine := s.busy && s.call == m.call
	if mine {
		s.busy = false
		if m.err != nil {
			s.retry = w.now + retryAfter
		}
	}
	if m.action.Do != drive.Record && (mine || m.err == nil) {
		d.view.Answered(m.action, m.action.Role, m.state, m.err, d.lead.clock())
	}
	d.act()
}

// apply appends a change to the log, by a leader; the record's promises are looked at.
func (w *world) apply(l *leader, c record.Change) error {
	cmd, err := record.NewCommand(w.next(), l.clock(), "sim", c)
	if err != nil {
		return err
	}
	before := w.state.Workloads[name]
	verdicts := w.verdicts()
	if err := w.state.Apply(w.state.Index+1, cmd); err != nil {
		return err
	}
	w.checkRecord(before, verdicts)
	w.checkCopies()
	return nil
}

// take is a proposal's arrival at the log.
func (w *world) take(m *message) {
	d := m.from
	answer := &message{kind: reply, from: d, action: m.action, call: m.call}
	switch {
	case d.lead != w.lead || d.lead.gone:
		answer.err = errs.New(errs.Unavailable, "another leads")
	default:
		answer.err = w.append(d, m.action.Change)
		if answer.err == nil && w.chance(w.faults) {
			answer.err = errs.New(errs.Timeout, "whether it was taken is not known")
			w.hit(lostProposal)
		}
	}
	w.send(answer)
	if answer.err == nil || errs.KindOf(answer.err) == errs.Timeout {
		w.lead.act()
	}
}

// append proposes for a driver.
func (w *world) append(d *driver, c record.Change) error {
	err := w.apply(d.lead, c)
	if !w.tracing {
		return err
	}
	what := ""
	switch c := c.(type) {
	case record.Step:
		for _, ev := range c.Events {
			what += " " + string(ev)
		}
		if c.Reason != "" {
			what += " (" + c.Reason + ")"
		}
	case record.Note:
		if what = " note: " + c.Note; c.ProbationOver {
			what = " probation is over"
		}
	}
	if err != nil {
		what += ", refused: " + err.Error()
	}
	w.say("log", "%s:%s", d.id, what)
	return err
}

// depose makes another coordinator the leader. The old one may have died, or go on for a while as if nothing had happened.
func (w *world) depose(dies bool) {
	old := w.lead
	for i := 0; i < len(w.net); i++ { // a proposal that was under way is in the log before the next leader acts, or never
		if m := w.net[i]; m.kind == propose && m.from.lead == old && w.draw(2) == 1 {
			w.net = append(w.net[:i], w.net[i+1:]...)
			i--
			if w.append(m.from, m.action.Change) == nil {
				w.hit(lateProposal)
			}
		}
	}
	w.lead = w.newLeader((old.id + 1) % 3)
	w.jumped = w.jumped || w.lead.skew != old.skew
	if dies {
		old.gone = true
		w.say(old.name(), "dies; %s leads", w.lead.name())
	} else {
		old.state = w.state.Clone()
		w.old = append(w.old, old)
		w.say(old.name(), "is deposed and does not know; %s leads", w.lead.name())
	}
	w.lead.act()
}
