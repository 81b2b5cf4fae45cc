package vm_test

import (
	"testing"

	"drover/testenv/vm"
)

func TestTheRealEngineKeepsWhatItsContractSaysOfPreDumps(t *testing.T) {
	const preDumps = "^TestRealEngineKeepsTheContract$/^a_pre-dump"
	runTests(t, boot(t, vm.Size{Megabytes: 1024}), "drover/testenv/engine", preDumps, "DROVER_ENGINETEST_INSIDE")
}
