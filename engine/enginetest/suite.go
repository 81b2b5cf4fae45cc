package enginetest

import "testing"

// Run holds an engine to its contract.
func Run(t *testing.T, g Ground) {
	for _, c := range []struct {
		name string
		test func(*bench)
	}{
		{"probe says what the engine is", probeSaysWhatTheEngineIs},

		{"a dump holds the tree still until its verdict", dumpHoldsStill},
		{"a dump to dead leaves nothing", dumpDead},
		{"a dump to stopped leaves every process stopped", dumpStopped},
		{"a dump to running leaves the tree running", dumpRunning},
		{"an aborted dump leaves the tree as it was", dumpAborted},
		{"a dump keeps stopped what was stopped before", dumpKeepsStopped},
		{"a dump sends its pages to a socket", dumpSendsPages},
		{"a look at the freeze sees a tree that stands", atFreezeSeesStill},
		{"an error at the freeze aborts the dump", atFreezeAborts},
		{"a dump whose time is up leaves the tree running", dumpTimesOut},
		{"a dump whose pages nobody takes leaves the tree running", dumpStuck},
		{"a dump of a dead tree says that it is gone", dumpGone},
		{"a dump cannot end in a state that does not exist", dumpNonsense},
		{"a lost dump stays frozen and can be aborted", dumpLost},

		{"a restore holds the tree still until its verdict", restoreHoldsStill},
		{"a restore may be asked for before its images are there", restoreAhead},
		{"a restore whose images do not come leaves nothing", restoreInVain},
		{"a restore to running runs with the memory it had", restoreRunning},
		{"a restore to stopped leaves every process stopped", restoreStopped},
		{"an aborted restore leaves nothing and can be repeated", restoreAborted},
		{"a restore keeps stopped what was stopped before", restoreKeepsStopped},
		{"a restore of torn or foreign images leaves nothing", restoreBadImages},
		{"a restore cannot end in dead", restoreNonsense},
		{"a lost restore never runs and can be aborted", restoreLost},
		{"a tree can be moved again and again", moveAgain},

		{"a pre-dump leaves the tree running or is refused", preDump},
		{"a pre-dump refuses other final states", preDumpNonsense},

		{"a lazy dump leaves the memory in the held tree", forLazy(lazyDumpLeavesMemory)},
		{"a lazy dump ends in any final state", forLazy(lazyDumpStates)},
		{"a lazy dump takes no socket and no parent", lazyDumpNonsense},
		{"an error at the freeze aborts a lazy dump", forLazy(lazyDumpAtFreeze)},
		{"a lost lazy dump stays frozen and can be aborted", forLazy(lazyDumpLost)},
		{"a lazy restore runs with the memory that was filled", forLazy(lazyRestoreRunning)},
		{"a lazy restore to stopped leaves every process stopped", forLazy(lazyRestoreStopped)},
		{"a lazy restore keeps stopped what was stopped before", forLazy(lazyRestoreKeepsStopped)},
		{"a lazy restore cannot be committed before it is filled", forLazy(lazyCommitUnfilled)},
		{"a lazy restore whose filler has gone can only be aborted", forLazy(lazyFillerGone)},
		{"a lazy restore with a page missing can only be aborted", forLazy(lazyPageMissing)},
		{"a lazy restore whose filling is given up leaves nothing", forLazy(lazyFillGivenUp)},
		{"a lost lazy restore never runs and can be aborted", forLazy(lazyRestoreLost)},
		{"a lazy restore needs a filler and lazy images", forLazy(lazyRestoreNonsense)},

		{"kill ends frozen, stopped and dead trees alike", kill},
		{"continue of a running tree changes nothing", continueRunning},
		{"a verdict has one effect", oneVerdict},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(newBench(t, g)) })
	}
}
