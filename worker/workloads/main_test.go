package workloads

import (
	"os"
	"testing"

	"drover/worker/keeper"
)

// TestMain lets the test binary be drover on the test hosts: keepers and setup stages execute it again, and tests drive it by
// hand, one process a step, so that every step is also a restart of the worker.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "keeper":
			os.Exit(keeper.Main(os.Args[2:]))
		case "hand":
			os.Exit(byHand(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}
