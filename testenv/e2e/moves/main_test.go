package moves

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"drover/testenv/rootfs"
)

var (
	movesInARow = flag.Int("moves", 10, "how many times the counter tree moves in a row; even")
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
	return m.Run(), nil
}
