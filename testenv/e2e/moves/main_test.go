package moves

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"drover/testenv/rootfs"
)

var (
	movesInARow = flag.Int("moves", 10, "how many times the counter tree moves in a row; even")
	chaosRounds = flag.Int("rounds", 0, "how many times every kill point is gone through; 0 draws some of them")
	chaosDrawn  = flag.Int("drawn", 12, "how many kill points are drawn")
	chaosOnly   = flag.String("points", "", "only kill points whose names match this regular expression")
	stopFor     = flag.Duration("stop", 2*time.Second, "how long what is stopped or cut off in a kill point stays so")
	seed        = flag.Uint64("seed", 1, "draws what is drawn; 0 takes the time")
	soakMoves   = flag.Int("soak", 0, "how many moves under random faults there are in a row; 0 is ten")
	update      = flag.Bool("update", false, "write the golden trace instead of comparing with it")
)

// programs is where TestMain puts what the hosts run.
var programs string

func program(name string) string { return filepath.Join(programs, name) }

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	root, err := rootfs.ModuleRoot()
	if err != nil {
		return 1, err
	}
	if programs, err = os.MkdirTemp("", "drover-moves-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(programs)
	build := exec.Command("go", "build", "-trimpath", "-o", programs+"/", "./cmd/drover", "./testenv/victims/counter", "./testenv/victims/echo", "./testenv/victims/dirtier")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build what the hosts run: %w\n%s", err, said)
	}
	halting := exec.Command("go", "build", "-trimpath", "-tags", "halts", "-o", program("drover-halts"), "./cmd/drover") // see worker/session/halt.go
	halting.Dir, halting.Env = root, build.Env
	if said, err := halting.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build a drover that halts: %w\n%s", err, said)
	}
	return m.Run(), nil
}
