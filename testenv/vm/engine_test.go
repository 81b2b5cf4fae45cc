package vm_test

import "testing"

func TestTheRealEngineKeepsWhatItsContractSaysOfPreDumps(t *testing.T) {
	const preDumps = "^TestRealEngineKeepsTheContract$/^a_pre-dump"
	runTests(t, boot(t, 1024), "drover/testenv/engine", preDumps, "DROVER_ENGINETEST_INSIDE")
}
