package vm_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/testenv/host/hosttest"
	"drover/testenv/vm"
)

// insideEnv tells the test binary that it is in a machine.
const insideEnv = "DROVER_VMTEST_INSIDE"

// inMachine runs a test in a machine of its own: outside it boots one, builds this package's tests and the programs (packages of
// this module), installs them and runs the test that called it there; inside it runs f.
func inMachine(t *testing.T, megabytes int, packages []string, f func()) {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		f()
		return
	}
	m := boot(t, megabytes)
	installPrograms(t, m, packages)
	runTests(t, m, ".", "^"+t.Name()+"$", insideEnv)
}

// runTests runs in the machine those tests of a package that match, with env set. It fails the test unless the tests have run there and passed.
func runTests(t *testing.T, m *vm.Machine, pkg, match, env string) {
	t.Helper()
	at := installTests(t, m, pkg)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	out, err := m.Run(ctx, "env", env+"=1", at, "-test.v", "-test.timeout", "5m", "-test.run", match)
	if err != nil {
		t.Fatalf("in the machine: %v\n%s", err, out)
	}
	if !strings.Contains(out, "--- PASS: ") {
		t.Fatalf("nothing ran in the machine:\n%s", out)
	}
	t.Logf("in the machine:\n%s", out)
}

// installTests builds the tests of a package, without libc because the machine may have another, and says where they are in it.
func installTests(t testing.TB, m *vm.Machine, pkg string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "tests")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-ldflags", "-s -w", "-o", binary, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, said)
	}
	at := filepath.Join(programs, "tests")
	install(t, m, binary, at)
	return at
}

// programs is where the machine has what was built for it.
const programs = "/usr/local/bin"

// installPrograms builds programs of this module and puts them into the machine.
func installPrograms(t testing.TB, m *vm.Machine, packages []string) {
	t.Helper()
	for _, p := range packages {
		install(t, m, hosttest.Build(t, p), filepath.Join(programs, filepath.Base(p)))
	}
}

func install(t testing.TB, m *vm.Machine, file, at string) {
	t.Helper()
	if err := m.Install(t.Context(), file, at); err != nil {
		t.Fatal(err)
	}
}

func boot(t testing.TB, megabytes int) *vm.Machine {
	t.Helper()
	m, err := vm.Boot(t.Context(), os.Stderr, megabytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}
