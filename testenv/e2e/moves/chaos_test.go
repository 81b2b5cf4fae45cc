package moves

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
	"drover/testenv/witness"
	"drover/worker/session/rules"
)

const (
	// aliveWithin is the promise: one live copy, and the migration over, so long after the last repair.
	aliveWithin = 30 * time.Second
	// struckTree is what the tree is called.
	struckTree = "struck"
)

// quick makes a move's own waits short: what is waited for is what was broken.
var quick = []string{"--probation", "300ms", "--freeze-deadline", "15s", "--deadline", "60s"}

// trial is one point that is gone through.
type trial struct {
	*arena
	t              *testing.T
	point          point
	source, target *cluster.Member
	processes      int // of the tree
	id             migration.ID
	begun          chan struct{} // closed when it has an id
	refused        error         // what the command that asked for the move said, if it failed
	hangUp         func()        // ends the operator's command
	sent           chan struct{} // closed when pages have been sent
	aborted        chan struct{} // closed when the record says ABORTED

	args []string // further ones of the move
	// meanwhile passes between the blow and its repair; over is closed when the operator's command has ended. nil is stopFor, and no time after a kill.
	meanwhile func(c *trial, over <-chan struct{})

	struck  time.Time
	lost    bool   // the tree is, as it may be
	ended   string // in what it ended, for the table
	kept    string // the client's connection
	seconds float64
}

func TestKillPoints(t *testing.T) {
	all := points(matrix)
	if *chaosOnly != "" {
		want := regexp.MustCompile(*chaosOnly)
		all = slices.DeleteFunc(all, func(p point) bool { return !want.MatchString(p.String()) })
	}
	draws := draw(t)
	rounds := *chaosRounds
	if rounds == 0 {
		if *chaosOnly == "" { // what is stopped, cut off, full or starved takes its time
			fixed := points(deaths) // are gone through anyway
			all = slices.DeleteFunc(all, func(p point) bool { return p.what != killed || slices.Contains(fixed, p) })
		}
		draws.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all, rounds = all[:min(len(all), *chaosDrawn)], 1
	}
	if a := goThrough(t, all, rounds, draws); a != nil {
		a.close(t)
	}
}

// goThrough strikes at every point, as often as that, and returns the arena unless the last one has left it as it should not be.
func goThrough(t *testing.T, all []point, rounds int, draws *rand.Rand) (a *arena) {
	t.Helper()
	table := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "round\tpoint\toutcome\tseconds to one live copy\tconnection")
	begun := time.Now()
	failed := 0
	for round := range rounds {
		for n, p := range all {
			if a == nil {
				a = newArena(t, coordinators, pair)
			}
			tr := &trial{arena: a, point: p}
			ok := tr.sub(t, p.String(), draws)
			done, of := round*len(all)+n+1, rounds*len(all)
			left := time.Since(begun) / time.Duration(done) * time.Duration(of-done)
			verdict := fmt.Sprintf("%s\t%.1f\t%s", tr.ended, tr.seconds, tr.kept)
			if !ok {
				verdict = "FAILED: " + verdict
				failed++
			}
			fmt.Fprintf(table, "%d\t%s\t%s\n", round+1, p, verdict)
			fmt.Printf("%d of %d, %d failed, %s left: %s: %s\n", done, of, failed, left.Round(time.Second), p, strings.ReplaceAll(verdict, "\t", ", "))
			if !ok { // the next one shall not start on hosts that are not as they should be
				a.close(t)
				a = nil
			}
		}
	}
	return a
}

// sub runs the trial as a test of its own within t.
func (c *trial) sub(t *testing.T, name string, draws *rand.Rand) (ok bool) {
	t.Helper()
	ok = t.Run(name, func(t *testing.T) { c.t = t; c.run(draws) })
	if ok { // not within the trial's own test, whose end would end the client's connection
		c.renew(t)
	}
	return ok
}

// draw is what draws, by the seed that was given or a new one, which is told.
func draw(t *testing.T) *rand.Rand {
	t.Helper()
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	fmt.Printf("drawn with -seed %d\n", s)
	return rand.New(rand.NewPCG(s, 0))
}

// strikeAt goes through a point, with further options of the move, and returns what became of the migration.
func (a *arena) strikeAt(t *testing.T, p point, meanwhile func(c *trial, over <-chan struct{}), args ...string) api.Migration {
	t.Helper()
	c := &trial{arena: a, t: t, point: p, meanwhile: meanwhile, args: args}
	return c.run(draw(t))
}

// run goes through the point, holds what comes of it to what the design says, and returns the migration.
func (c *trial) run(draws *rand.Rand) api.Migration {
	t := c.t
	c.ended, c.kept = "?", "?"
	w, err := c.Workload(t.Context(), struckTree)
	if err != nil {
		t.Fatal(err)
	}
	c.source, c.target = c.worker(t, w.Owner), c.other(t, w.Owner)
	c.processes = c.service.copies(c.source.Host)
	c.seen.Begin()
	logs := map[*cluster.Member]int{}
	for _, m := range c.members() {
		logs[m] = len(m.Daemon.Log())
	}
	defer func() {
		if t.Failed() {
			c.tell(logs)
		}
	}()
	over := c.move(struckTree)
	repaired := c.reachAndStrike(over, draws)
	<-over
	return c.judge(repaired)
}

// slow makes a copy last for so long that whatever happens in it, happens in it, though the target has kept pages of the tree; then hurry lets it go
// on at full speed.
var slow = []string{"--bandwidth", "500kB", "--compression", "none", "--max-rounds", "1"}

// options are what the move is told.
func (c *trial) options() []string {
	p, o := c.point, slices.Clone(quick)
	switch {
	case p.at.slowly():
		o = append(o, slow...)
	case p.at == running:
		o = append(o, "--probation", "2s")
	}
	switch p.who {
	case theFiller: // a small tree's would have done its work before the tree is held
		o = append(o, "--fill", "running")
	case theLeader, theMajority: // on a busy machine it takes its time to elect another
		o = append(o, "--freeze-deadline", "60s")
	}
	return append(o, c.args...)
}

// hurry lifts the limit that has stretched the copy, if there is somebody to lift it before the move is over.
func (c *trial) hurry(over <-chan struct{}) {
	select {
	case <-c.begun:
	case <-over:
		return
	}
	for {
		if _, err := c.Drover(c.t.Context(), "limit", string(c.id), "none"); err == nil {
			return
		}
		select {
		case <-over:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// comesTo returns when the record says that the migration is in the phase.
func (c *trial) comesTo(p migration.Phase) {
	c.t.Helper()
	<-c.begun
	hosttest.Eventually(c.t, "the migration is "+string(p), func() bool {
		var m api.Migration
		return c.JSON(c.t.Context(), &m, "show", "migration/"+string(c.id)) == nil && m.Phase == p
	})
}

// move begins to move a tree; the channel is closed when the command that asked for it has ended.
func (c *trial) move(tree string) <-chan struct{} {
	args := c.options()
	c.begun, c.sent, c.aborted = make(chan struct{}), make(chan struct{}), make(chan struct{})
	over, to, sent, told := make(chan struct{}), c.target.Name, false, false
	ctx, cancel := context.WithTimeout(c.t.Context(), hosttest.Patience)
	c.hangUp = cancel
	go func() {
		defer close(over)
		defer cancel()
		see := func(m api.Migration) {
			if c.id == "" {
				c.id = m.ID
				close(c.begun)
			}
			if m.Progress.PagesSent > 0 && !sent {
				sent = true
				close(c.sent)
			}
			if m.Phase == migration.Aborted && !told {
				told = true
				close(c.aborted)
			}
		}
		_, c.refused = c.Migrate(ctx, see, tree, to, args...) // what became of it is the record's to say
	}()
	return over
}

// reachAndStrike strikes when the move is where the point says, and returns when the last repair was made.
func (c *trial) reachAndStrike(over <-chan struct{}, draws *rand.Rand) time.Time {
	t, p := c.t, c.point
	at := c.halt(t, c.side(p.at.role), p.at.role, p.at.op)
	if p.at.undo {
		held := c.halt(t, c.target, dst, rules.TellHeld)
		if !held.reached(over) {
			t.Fatal("the move did not come to where it is aborted")
		}
		<-c.begun                                                           // it is held, and so has an id
		go func() { _, _ = c.Drover(t.Context(), "abort", string(c.id)) }() // it waits until both have undone it
		select {
		case <-c.aborted:
		case <-over:
		}
		held.letGo()
	}
	if !at.reached(over) {
		<-over
		t.Fatalf("the move did not come to: %s: %v", p.at, c.refused)
	}
	if p.at.sends {
		at.letGo()
		select {
		case <-c.sent:
		case <-over:
			t.Fatalf("no pages were sent: %v", c.refused)
		}
	}
	if p.at.within > 0 {
		at.letGo()
		<-time.After(time.Duration(draws.Int64N(int64(p.at.within))))
	}
	c.seen.Note("%s", p)
	c.struck = time.Now()
	repair, err := c.strike(p)
	switch {
	case errors.Is(err, errNotThere) && p.at.within > 0 && p.ends == either: // it has done its work by then
		c.seen.Note("not struck: %s", err)
		repair = func() {}
	case err != nil:
		t.Error(err)
		repair = func() {}
	}
	at.letGo()
	switch {
	case c.meanwhile != nil:
		c.meanwhile(c, over)
	case p.what != killed:
		<-time.After(*stopFor)
	}
	repair()
	if p.at.slowly() {
		c.hurry(over)
	}
	c.seen.Note("repaired")
	return time.Now()
}

// late says whether the blow, which falls some time after an op has begun, has fallen when the migration was committed already.
func (c *trial) late(m api.Migration) bool {
	return c.point.at.within > 0 && slices.ContainsFunc(m.Transitions, func(tr api.Transition) bool {
		return tr.Phase == migration.Committed && tr.Time.Before(c.struck)
	})
}

// judge waits for the end of the migration, looks at what there is then, and returns the migration.
func (c *trial) judge(repaired time.Time) api.Migration {
	t := c.t
	if c.id == "" {
		t.Fatal("the move did not begin")
	}
	m := c.outcome(t, c.id)
	c.mend(t)
	tenures := append([]witness.Tenure{{Host: m.Source}}, tenuresBy(m)...)
	home := tenures[len(tenures)-1].Host
	c.ended = map[bool]string{true: "source", false: "target"}[home == m.Source]
	c.proved(t, m.ID)
	t.Logf("it ended %s: %s", m.Phase, m.Reason)
	if err := c.seen.Judge(tenures...); err != nil {
		t.Error(err)
	}
	if c.point.mayEnd() && c.gone(home) {
		c.ended, c.kept = "lost with its host", "-"
		if c.point.ends == documented {
			c.ended = "ended, as documented"
		}
		c.lost = true
		return m
	}
	ctx, cancel := context.WithTimeout(t.Context(), aliveWithin)
	defer cancel()
	if err := c.seen.Alive(ctx, home, time.Now()); err != nil {
		t.Fatal(err)
	}
	c.seconds = time.Since(repaired).Seconds()
	if c.seconds > aliveWithin.Seconds() {
		t.Errorf("it took %.1f s to one live copy and the migration's end, after the last repair", c.seconds)
	}
	if c.point.ends == withHost || c.point.ends == here && home != m.Source && !c.late(m) || (c.point.ends == there || c.point.ends == rescued) && home != m.Target {
		t.Errorf("it ended on the %s, because of %q; want: %s", c.ended, m.Reason, c.point.ends)
	}
	c.connection(m)
	c.service.lives(t, home)
	c.nothingNew(home)
	return m
}

// tenuresBy are those that a migration's verdict adds.
func tenuresBy(m api.Migration) []witness.Tenure {
	switch m.Verdict {
	case migration.Commit:
		return []witness.Tenure{{Host: m.Target}}
	case migration.Reclaim:
		return []witness.Tenure{{Host: m.Target}, {Host: m.Source, Reclaimed: true}}
	}
	return nil
}

// gone says whether the tree has ended on its owner, or some of its processes have.
func (c *trial) gone(home string) bool {
	return c.service.copies(c.worker(c.t, home).Host) < c.processes
}

// connection holds the client's connection to the design: it is lost only with a copy that had run, or might have, and was killed.
func (c *trial) connection(m api.Migration) {
	c.kept = "kept"
	if err := c.service.call.goesOn(c.t); err != nil {
		c.kept = "lost"
		mayHaveRun := m.Verdict == migration.Reclaim && (c.point.at.op == rules.LetRun && c.point.at.within > 0 || slices.ContainsFunc(m.Transitions, func(tr api.Transition) bool { return tr.Phase == migration.Released }) ||
			slices.Contains([]rules.Op{rules.Accept, rules.TellReleased, rules.WriteRuled}, c.point.at.op))
		if !mayHaveRun && c.point.ends != documented {
			c.t.Errorf("the client's connection: %v", err)
		}
		c.service.call.hangUp()
		c.service.dial(c.t)
	}
}

// renew begins anew what the point has cost: the tree, or the client's connection to it.
func (c *trial) renew(t *testing.T) {
	t.Helper()
	switch {
	case c.lost:
		c.service.call.hangUp()
		c.drover(t, "rm", "--force", struckTree)
		c.begin(t)
	case c.kept == "lost":
		c.service.dial(t)
	}
}

// nothingNew fails the test if there is more on the hosts than when the tree lived there before anything was struck.
func (c *trial) nothingNew(home string) {
	ctx, cancel := context.WithTimeout(c.t.Context(), aliveWithin)
	defer cancel()
	for {
		var more []string
		for thing, n := range c.present(c.t) {
			if n <= c.clean[home][thing] {
				continue
			}
			more = append(more, thing)
		}
		if len(more) == 0 {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			slices.Sort(more)
			c.t.Fatalf("left behind:\n%s", strings.Join(more, "\n"))
		}
	}
}

// tell prints what the daemons have said since the trial began.
func (c *trial) tell(logs map[*cluster.Member]int) {
	show, _ := c.Drover(context.WithoutCancel(c.t.Context()), "show", "migration/"+string(c.id))
	c.t.Log(show)
	for _, m := range c.members() {
		if log := m.Daemon.Log(); m.Up() && len(log) > logs[m] {
			log = log[logs[m]:]
			c.t.Logf("--- %s\n%s", m.Name, log[max(0, len(log)-20000):])
		}
	}
}
