// Package hosttest gives tests a bed of hosts that ends with the test. It fails the test where the host package returns an error,
// and never skips. Start with Bed.
package hosttest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/testenv/host"
	"drover/testenv/rootfs"
)

// Bed opens a bed with the named hosts at 10.77.0.1/24, 10.77.0.2/24, … and closes it when the test ends. It fails the test if
// the bed does not close cleanly. A test that failed says what the hosts' logs say.
func Bed(t testing.TB, names ...string) *host.Bed {
	t.Helper()
	bed, err := host.NewBed(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	TellIfFailed(t, bed)
	for _, name := range names {
		Host(t, bed, name)
	}
	return bed
}

// Host adds a host to the bed, at the next free address of 10.77.0.0/24.
func Host(t testing.TB, bed *host.Bed, name string) *host.Host {
	t.Helper()
	address := fmt.Sprintf("10.77.0.%d/24", len(bed.Hosts())+1)
	h, err := bed.Host(t.Context(), name, host.Options{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Run runs a command in the host, within Patience, and returns its standard output without space around it.
func Run(t testing.TB, h *host.Host, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	out, err := h.Run(ctx, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// Start starts a program in the host; it ends with the bed at the latest.
func Start(t testing.TB, h *host.Host, name string, argv ...string) *host.Daemon {
	t.Helper()
	d, err := h.Start(t.Context(), name, argv)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Install builds a program of this module, static, and puts it on the hosts: Install(t, "./testenv/victims/counter",
// "/usr/local/bin/counter", alpha, beta).
func Install(t testing.TB, pkg, at string, on ...*host.Host) {
	t.Helper()
	binary := Build(t, pkg)
	for _, h := range on {
		if err := h.Install(binary, at); err != nil {
			t.Fatal(err)
		}
	}
}

// ProgramsEnv names a folder that holds this module's programs, for tests on a machine that has no Go to build them with.
const ProgramsEnv = "DROVER_PROGRAMS"

// Build builds a program of this module, static, and returns its path; it goes with the test.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	if dir := os.Getenv(ProgramsEnv); dir != "" {
		return filepath.Join(dir, filepath.Base(pkg))
	}
	root, err := rootfs.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", out, pkg)
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, said)
	}
	return out
}

// Commit is what this module's source is, for reports: its commit, and whether it was changed since.
func Commit(t testing.TB) string {
	t.Helper()
	said, err := exec.CommandContext(t.Context(), "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "of no repository" // an unpacked archive, or no git here
	}
	return strings.TrimSpace(string(said))
}

// Patience bounds every wait of a test on hosts. It says only that something will never come: the machine may be slow and busy,
// and how fast things are is for benchmarks.
const Patience = 3 * time.Minute

// Eventually returns when the condition holds and fails the test if it never does; what says what was waited for.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", Patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
