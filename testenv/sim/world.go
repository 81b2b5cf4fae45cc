package sim

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"drover/coordinator/record"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// name is the workload's; there is one.
const name = "w"

// bounds of a schedule
const (
	mostChaos   = 400  // steps while things go wrong
	mostMending = 4000 // steps until all must have ended
	tick        = 500 * time.Millisecond
)

var begin = time.Unix(1_000_000_000, 0).UTC()

// world is one schedule.
type world struct {
	choices
	cover   *Coverage
	tracing bool
	trace   []string

	now    time.Duration
	latest time.Time     // that any leader's clock has shown
	jumped bool          // a leader's clock has, since the last move began
	state  *record.State // the record as the log has it
	ids    int           // of commands, migrations, calls
	hosts  []*host
	lead   *leader
	old    []*leader // deposed, and not aware of it
	net    []*message
	faults int // per mille, of an op
	stir   int // per mille, of a step in which somebody strikes
	mix    int // per mille, of a step in which not the oldest of what can happen does

	moves    int // migrations begun
	mostMove int
	options  workerapi.MoveOptions
	held     map[migration.ID]bool // targets that have said so
	excuse   string                // why there may be no copy any more
	finished bool                  // the tree has ended by itself, its work is done
	broken   error                 // the first rule that was broken
	runnable []event
}

// basis is the record every schedule begins with: three hosts, of which a runs the workload.
var basis = func() *record.State {
	s := record.New()
	for _, h := range []string{"a", "b", "c"} {
		s.Hosts[h] = record.Host{Name: h, Address: h + ":1"}
	}
	s.Workloads[name] = record.Workload{Name: name, Spec: spec(), Owner: "a", Epoch: 1, Life: record.Started}
	return s
}()

func spec() workload.Spec {
	return workload.Spec{Name: name, Kind: workload.Run, Command: []string{"sleep"}}
}

// newWorld makes a world in which nothing has happened.
func newWorld(c choices, cover *Coverage, tracing bool) *world {
	w := &world{choices: c, cover: cover, tracing: tracing, state: basis.Clone(), held: map[migration.ID]bool{}}
	for i, n := range []string{"a", "b", "c"} {
		h := &host{w: w, name: n, up: true, worker: true, ready: true, boot: 1, index: i}
		w.hosts = append(w.hosts, h)
	}
	a := w.hosts[0]
	a.place = place{state: running, epoch: 1, boot: 1, keeper: true, tree: &tree{alive: true, filled: true}}
	w.lead = w.newLeader(0)
	return w
}

// bySeed are the choices of a seed.
func bySeed(seed uint64) choices {
	return choices{random: rand.NewPCG(seed, 0x9e3779b97f4a7c15), tape: make([]uint16, 0, 1024)}
}

// byTape are choices that were made before.
func byTape(tape []uint16) choices { return choices{tape: tape, replay: true} }

// run is a whole schedule: chaos, then mending. It ends at the first rule that is broken.
func (w *world) run() error {
	w.profile()
	w.admit()
	for range 1 + w.draw(mostChaos) {
		if w.broken != nil {
			return w.broken
		}
		w.chaos()
	}
	w.mend()
	for range mostMending {
		if w.broken != nil || w.settled() {
			break
		}
		w.progress()
	}
	if w.broken == nil {
		w.broken = w.verdict()
	}
	return w.broken
}

// profile draws what kind of schedule this is.
func (w *world) profile() {
	w.faults = []int{0, 0, 5, 10, 20, 50}[w.draw(6)]
	w.stir = []int{0, 10, 25, 60, 120, 300}[w.draw(6)]
	w.mix = []int{0, 50, 300, 1000}[w.draw(4)]
	w.mostMove = 1 + w.draw(3)
	for _, h := range w.hosts {
		h.lazy = w.draw(2) == 1
		h.skew = time.Duration(w.draw(3)) * 7 * time.Second
	}
	if w.chance(150) {
		w.options.SourceFinalState = migration.Stopped
	}
	if w.chance(200) {
		w.options.Deadline = 20 * time.Second
	}
	w.options = w.options.Resolved()
}

// chaos is one step in which something may go wrong.
func (w *world) chaos() {
	if w.moves < w.mostMove && w.state.Workloads[name].Migration == "" && w.draw(4) == 3 {
		w.admit()
	}
	if !w.chance(w.stir) {
		w.comeBack(5)
		w.progress()
		return
	}
	switch w.draw(5) {
	case 0:
		w.reorder()
	case 1, 2:
		w.strike()
	case 3:
		w.talk()
	default:
		w.upset()
	}
}

// progress lets one thing happen: of those that can, any while there is chaos, else the oldest. When nothing can, time passes.
func (w *world) progress() {
	events := w.events()
	if len(events) == 0 {
		w.pass(tick)
		return
	}
	i := 0
	if w.chance(w.mix) {
		i = w.draw(len(events))
	}
	w.do(events[i])
}

// pass lets time pass, and those who look at clocks look.
func (w *world) pass(d time.Duration) {
	w.now += d
	for _, h := range w.hosts {
		w.heartbeat(h)
	}
	for _, h := range w.hosts {
		h.takeUpAgain()
		w.askVerdicts(h)
	}
	w.lead.act()
}

// admit begins a migration of the workload if none is under way, to a host that is not its owner.
func (w *world) admit() {
	if w.moves >= w.mostMove {
		return
	}
	wl := w.state.Workloads[name]
	owner := w.hostOf(wl.Owner)
	target := w.hosts[(owner.index+1+w.draw(2))%3]
	if wl.Migration != "" || !target.up || !target.worker || !owner.up || !owner.worker {
		return // the doctor refuses
	}
	if w.place(target).state != gone && w.place(target).state != "" && w.place(target).state != exited {
		return // so does Reserve
	}
	id := migration.ID("m" + strconv.Itoa(w.moves+1))
	boots := [2]string{w.lead.boot(owner.name), w.lead.boot(target.name)}
	err := w.apply(w.lead, record.Admit{
		Migration: id, Workload: name, Source: owner.name, Target: target.name, Epoch: wl.Epoch, SourceBoot: boots[0], TargetBoot: boots[1],
		Options: w.options, Deadline: w.lead.clock().Add(w.deadline()),
	})
	if err != nil {
		return
	}
	w.moves++
	w.jumped = false
	if w.place(owner).whole() {
		w.excuse = "" // it lives
	}
	for _, h := range w.hosts {
		h.struck, h.fell = false, false
	}
	w.say("", "%s: move from %s to %s admitted at %s", id, owner.name, target.name, wl.Epoch)
	w.lead.act()
}

func (w *world) deadline() time.Duration {
	if w.options.Deadline > 0 {
		return w.options.Deadline
	}
	return 10 * time.Minute
}

func (w *world) place(h *host) *place { return &h.place }

func (w *world) hostOf(n string) *host {
	for _, h := range w.hosts {
		if h.name == n {
			return h
		}
	}
	return nil
}

// move is the newest migration.
func (w *world) move() (record.Migration, bool) {
	m, ok := w.state.Migrations[migration.ID("m"+strconv.Itoa(w.moves))]
	return m, ok
}

// say adds a line to the trace.
func (w *world) say(who, format string, args ...any) {
	if !w.tracing {
		return
	}
	line := fmt.Sprintf("%-9s %s", who, fmt.Sprintf(format, args...))
	for i := max(0, len(w.trace)-6); i < len(w.trace); i++ { // what is tried again and again is told once
		if strings.HasSuffix(w.trace[i], line) {
			return
		}
	}
	w.trace = append(w.trace, fmt.Sprintf("%8.1fs %s", w.now.Seconds(), line))
}

func (w *world) next() string {
	w.ids++
	return strconv.Itoa(w.ids)
}
