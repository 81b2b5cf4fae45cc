package moves

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"testing"
	"time"

	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/witness"
)

const soakTrees = 10

// hop is one move of a soak and what strikes it. A soak's hops are drawn before it begins: the same seed gives the same ones.
type hop struct {
	tree  int
	on    int // to the first or the second of the two hosts that it is not on
	who   party
	role  migration.Role
	what  fault
	after time.Duration // from the beginning of the move
}

func (h hop) String() string {
	if h.who == "" {
		return fmt.Sprintf("tree %d: nothing", h.tree)
	}
	return fmt.Sprintf("tree %d: %s %s: %s after %s", h.tree, h.role, h.who, h.what, h.after)
}

// strikes are what a hop may meet. Hosts do not die in it: the other trees that they carry would die with them. Nor is a source's CRIU killed:
// in the middle of a dump that may end a tree (docs/protocol.md).
var strikes = []hop{
	{}, // nothing
	{who: theWorker, role: src, what: killed}, {who: theWorker, role: dst, what: killed}, {who: theWorker, role: src, what: stopped}, {who: theWorker, role: dst, what: stopped},
	{who: theKeeper, role: src, what: killed}, {who: theKeeper, role: dst, what: killed}, {who: theKeeper, role: src, what: stopped}, {who: theKeeper, role: dst, what: stopped},
	{who: theCRIU, role: dst, what: killed}, {who: theCRIU, role: src, what: stopped}, {who: theFiller, role: dst, what: killed},
	{who: theLeader, what: killed}, {who: theLeader, what: stopped}, {who: theLink, what: cutOff}, {who: theLink, role: src, what: cutOff}, {who: theLink, role: dst, what: cutOff},
}

func schedule(draws *rand.Rand, n int) (hops []hop) {
	for range n {
		h := strikes[draws.IntN(len(strikes))]
		h.tree, h.on, h.after = draws.IntN(soakTrees), draws.IntN(2), time.Duration(draws.Int64N(int64(1500*time.Millisecond)))
		hops = append(hops, h)
	}
	return hops
}

// soaked is a tree of a soak, with who had it when.
type soaked struct {
	name    string
	tenures []witness.Tenure
	seen    *witness.Trace
}

func (s *soaked) home() string { return s.tenures[len(s.tenures)-1].Host }

func TestMovesUnderRandomFaults(t *testing.T) {
	hops := schedule(draw(t), max(*soakMoves, 10))
	a := &arena{ground: newGround(t, coordinators, "alpha", "beta", "gamma")}
	var trees []*soaked
	for n := range soakTrees {
		s := &soaked{name: "tree" + strconv.Itoa(n), tenures: []witness.Tenure{{Host: a.Workers[n%len(a.Workers)].Name}}}
		var witness string
		s.seen, witness = a.watch(t, 9000+n)
		a.drover(t, "run", s.name, "--host", s.home(), "--", "counter", "-processes", "1", "-threads", "1", "-pages", "64", "-pause", "20ms", "-say", "0", "-witness", witness)
		trees = append(trees, s)
	}
	a.allAlive(t, trees)
	ends := map[migration.Phase]int{}
	begun := time.Now()
	for n, h := range hops {
		s := trees[h.tree]
		phase := a.hop(t, s, h)
		ends[phase]++
		left := time.Since(begun) / time.Duration(n+1) * time.Duration(len(hops)-n-1)
		fmt.Printf("move %d of %d, %s left: %s: %s, now on %s\n", n+1, len(hops), left.Round(time.Second), h, phase, s.home())
		if t.Failed() {
			t.Fatalf("after %d moves", n+1)
		}
	}
	a.allAlive(t, trees)
	fmt.Printf("%d moves in %s: %v, none lost, none doubled\n", len(hops), time.Since(begun).Round(time.Second), ends)
	for _, s := range trees {
		a.drover(t, "stop", s.name)
		a.drover(t, "rm", s.name)
	}
	a.nothingLeft(t, spare)
}

// hop moves a tree while something strikes, and holds what comes of it to the record.
func (a *arena) hop(t *testing.T, s *soaked, h hop) migration.Phase {
	t.Helper()
	var others []*cluster.Member
	for _, w := range a.Workers {
		if w.Name != s.home() {
			others = append(others, w)
		}
	}
	c := &trial{arena: a, t: t, source: a.worker(t, s.home()), target: others[h.on]}
	over := c.move(s.name)
	repaired := c.strikeAfter(s, h, over)
	<-over
	if c.id == "" { // it was refused because somebody was away: nothing has happened
		a.mend(t)
		return "not begun"
	}
	m := a.outcome(t, c.id)
	a.mend(t)
	s.tenures = append(s.tenures, tenuresBy(m)...)
	if err := s.seen.Judge(s.tenures...); err != nil {
		t.Error(err)
	}
	a.proved(t, m.ID)
	a.alive(t, s)
	if took := time.Since(repaired); took > aliveWithin {
		t.Errorf("%s: it took %s after the last repair", h, took)
	}
	return m.Phase
}

// strikeAfter strikes when it is time, unless the party is not there then, and returns when it has been repaired.
func (c *trial) strikeAfter(s *soaked, h hop, over <-chan struct{}) time.Time {
	select {
	case <-time.After(h.after):
	case <-over: // it strikes hosts that rest
	}
	if h.who == "" {
		return time.Now()
	}
	p := point{who: h.who, role: h.role, what: h.what}
	s.seen.Note("%s", h)
	repair, err := func() (func(), error) {
		line, ofProcesses := commandLines[h.who]
		if !ofProcesses {
			return c.strike(p)
		}
		if h.who == theKeeper {
			line = regexp.MustCompile(keeper + `.*\b` + s.name + `\b`)
		}
		pids := c.side(h.role).Processes(line)
		if len(pids) == 0 {
			return func() {}, nil
		}
		return c.strikeProcesses(c.side(h.role), pids, h.what)
	}()
	c.complain(err)
	if err != nil {
		return time.Now()
	}
	if h.what != killed {
		<-time.After(*stopFor)
	}
	repair()
	return time.Now()
}

func (a *arena) alive(t *testing.T, s *soaked) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), aliveWithin)
	defer cancel()
	if err := s.seen.Alive(ctx, s.home(), time.Now()); err != nil {
		t.Error(err)
	}
}

func (a *arena) allAlive(t *testing.T, trees []*soaked) {
	t.Helper()
	for _, s := range trees {
		a.alive(t, s)
	}
}
