package sim

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"drover/internal/migration"
	"drover/worker/session/rules"
)

// fault is what went wrong.
type fault uint8

const (
	sourceWorker fault = iota
	targetWorker
	sourceKeeper
	targetKeeper
	sourceMute
	targetMute
	sourceCRIU
	targetCRIU
	targetFiller
	sourceHost
	targetHost
	sourceTree
	targetTree
	sourceDisk
	targetDisk
	sourceTorn
	targetTorn
	dumpUndone
	leaderDied
	leaderDeposed
	staleLeader
	lostProposal
	lateProposal
	dropped
	repeated
	reordered
	clockJumped
	clockSkewed
	aborted
	faults
)

var faultNames = [faults]string{
	"source's worker dies", "target's worker dies", "source's keeper dies", "target's keeper dies",
	"source's keeper is mute to a new worker", "target's keeper is mute to a new worker", "source's CRIU dies", "target's CRIU dies",
	"what fills memory dies", "source's host dies", "target's host dies", "source's tree dies", "target's tree dies", "source's disk is full", "target's disk is full",
	"source's journal is torn", "target's journal is torn", "the dump is undone", "the leader dies", "the leader is deposed", "a deposed leader acts",
	"a proposal's result is lost", "a deposed leader's proposal lands", "a message is lost", "a message is repeated", "messages are reordered", "time passes at once", "a clock jumps", "the operator aborts",
}

// A fault of one host, which is the migration's source or its target.
type hostFault struct{ source, target fault }

var (
	workerDied  = hostFault{sourceWorker, targetWorker}
	keeperDied  = hostFault{sourceKeeper, targetKeeper}
	keeperMute  = hostFault{sourceMute, targetMute} // when a worker starts
	criuDied    = hostFault{sourceCRIU, targetCRIU}
	fillerDied  = hostFault{faults, targetFiller}
	hostGone    = hostFault{sourceHost, targetHost}
	treeDied    = hostFault{sourceTree, targetTree}
	journalFull = hostFault{sourceDisk, targetDisk}
	tornJournal = hostFault{sourceTorn, targetTorn}
)

// phases in the order in which a migration comes to them.
var phases = []migration.Phase{
	migration.Admitted, migration.Copying, migration.Frozen, migration.Staged, migration.Held, migration.Committed, migration.Released,
	migration.Done, migration.Aborted, migration.Reclaimed, migration.RolledBack,
}

// What happens to an op.
type manner uint8

const (
	before manner = iota
	within
	hostDied
	failed
	manners
)

// Coverage counts what has been tried.
type Coverage struct {
	Schedules int
	cells     [11][faults]int
	ops       [64][manners]int
	ends      [3]int // DONE, ROLLED_BACK after an abort, after a reclaim
}

func (c *Coverage) op(op rules.Op, m manner) { c.ops[op][m]++ }

// hit notes a fault while the newest migration is where it is.
func (w *world) hit(f fault) { w.hitIn(w.where(), f) }

func (w *world) hitIn(p migration.Phase, f fault) {
	if f == faults {
		return
	}
	for i, q := range phases {
		if p == q {
			w.cover.cells[i][f]++
		}
	}
}

func (w *world) hitHost(f hostFault, h *host) {
	switch m, _ := w.move(); h.name {
	case m.Source:
		w.hit(f.source)
	case m.Target:
		w.hit(f.target)
	}
}

// end notes how migrations have ended.
func (w *world) end() {
	w.cover.Schedules++
	for i := 1; i <= w.moves; i++ {
		switch m := w.state.Migrations[id(i)]; m.Verdict() {
		case migration.Commit:
			w.cover.ends[0]++
		case migration.Abort:
			w.cover.ends[1]++
		case migration.Reclaim:
			w.cover.ends[2]++
		}
	}
}

// Add adds what another has counted.
func (c *Coverage) Add(o *Coverage) {
	c.Schedules += o.Schedules
	for i := range c.cells {
		for j := range c.cells[i] {
			c.cells[i][j] += o.cells[i][j]
		}
	}
	for i := range c.ops {
		for j := range c.ops[i] {
			c.ops[i][j] += o.ops[i][j]
		}
	}
	for i := range c.ends {
		c.ends[i] += o.ends[i]
	}
}

// Print writes the tables: every phase by every failure, every op by how it was broken off.
func (c *Coverage) Print(out io.Writer) {
	fmt.Fprintf(out, "%d schedules; migrations ended: %d DONE, %d aborted, %d reclaimed\n\n", c.Schedules, c.ends[0], c.ends[1], c.ends[2])
	t := tabwriter.NewWriter(out, 0, 0, 1, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "failure\t")
	for _, p := range phases {
		fmt.Fprintf(t, "%s\t", strings.ToLower(string(p)))
	}
	fmt.Fprintln(t)
	for f := range faults {
		fmt.Fprintf(t, "%s\t", faultNames[f])
		for i, p := range phases {
			if n := c.cells[i][f]; n == 0 && unreachable(p, f) != "" {
				fmt.Fprint(t, "-\t")
			} else {
				fmt.Fprintf(t, "%d\t", n)
			}
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	fmt.Fprintln(out)
	t = tabwriter.NewWriter(out, 0, 0, 1, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "op\tworker dies before\twithin\thost dies\tit fails\t\n")
	for _, op := range rules.Ops() {
		n := c.ops[op]
		if never(op) {
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t\n", op, n[before], n[within], n[hostDied], n[failed])
	}
	t.Flush()
}

// Missed lists what should have been tried and was not.
func (c *Coverage) Missed() (all []string) {
	for f := range faults {
		for i, p := range phases {
			if c.cells[i][f] == 0 && unreachable(p, f) == "" {
				all = append(all, faultNames[f]+" while it is "+string(p))
			}
		}
	}
	for _, op := range rules.Ops() {
		if n := c.ops[op]; !never(op) && (n[before] == 0 || n[within] == 0 || n[hostDied] == 0) {
			all = append(all, "somebody dies at "+op.String())
		}
	}
	for i, what := range []string{"DONE", "aborted", "reclaimed"} {
		if c.ends[i] == 0 {
			all = append(all, "a migration that ends "+what)
		}
	}
	return all
}

// never is an op that the simulator's programs do not have: it is within Copy.
func never(op rules.Op) bool { return op == rules.WriteThrottle || op == rules.WriteThrottled }

// unreachable is why a failure cannot come in a phase, "" if it can.
func unreachable(p migration.Phase, f fault) string {
	for _, n := range nowhere {
		if slices.Contains(n.faults, f) && slices.Contains(n.phases, p) {
			return n.why
		}
	}
	return ""
}

var nowhere = []struct {
	why    string
	faults []fault
	phases []migration.Phase
}{
	{"nothing has been dumped or rebuilt", []fault{sourceCRIU, targetCRIU, targetFiller, dumpUndone}, phases[:2]},
	{"all is over", []fault{sourceMute, targetMute, sourceCRIU, targetCRIU, targetFiller, targetTorn, sourceTorn, dumpUndone}, []migration.Phase{migration.Done}},
	{"all has been undone", []fault{sourceCRIU, targetCRIU, targetFiller, dumpUndone, targetTree}, []migration.Phase{migration.RolledBack}},
	{"how far its host has come is not said before it is taken up", []fault{targetMute}, []migration.Phase{migration.Staged, migration.Held}},
	{"CRIU has let go of it", []fault{targetCRIU}, []migration.Phase{migration.Released}},
	{"it is dead", []fault{targetCRIU, targetFiller, targetTree}, []migration.Phase{migration.Reclaimed}},
	{"it stands still, or is no more", []fault{sourceTree}, phases[3:8]},
	{"it has not run", []fault{targetTree}, append([]migration.Phase{migration.Aborted}, phases[:5]...)},
	{"nothing is written then", []fault{sourceTorn}, []migration.Phase{migration.Copying, migration.Staged, migration.Held}},
	{"nothing is written then", []fault{targetTorn}, []migration.Phase{migration.Copying, migration.Frozen, migration.Held}},
	{"the dump is over", []fault{dumpUndone}, append([]migration.Phase{migration.Reclaimed}, phases[3:7]...)},
	{"the record goes on with one entry, to another phase", []fault{lostProposal, lateProposal}, []migration.Phase{migration.Admitted, migration.Staged, migration.Held}},
	{"it is refused: there is a verdict", []fault{aborted}, phases[5:]},
}
