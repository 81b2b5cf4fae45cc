package engine_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/engine/enginetest"
	"drover/testenv/host/hosttest"
)

// insideEnv tells the test binary that it is on a test host.
const insideEnv = "DROVER_ENGINETEST_INSIDE"

func TestMain(m *testing.M) {
	if role := os.Getenv(victimEnv); role != "" {
		victim(role)
	}
	if what := os.Getenv(patientEnv); what != "" {
		patient(what)
	}
	if what := os.Getenv(misfitEnv); what != "" {
		misfit(what)
	}
	if what := os.Getenv(injectsEnv); what != "" {
		injects(what)
	}
	os.Exit(m.Run())
}

func TestRealEngineKeepsTheContract(t *testing.T) {
	onHost(t, func() { enginetest.Run(t, newGround(t)) })
}

// onHost runs a test or benchmark on a host of its own: outside it builds this package's tests and the programs (packages of this
// module), installs them and runs the one that called it there; inside it runs f.
func onHost(t testing.TB, f func(), programs ...string) {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		f()
		return
	}
	const at = "/usr/local/bin/enginetest"
	h := hosttest.Bed(t, "alpha").Hosts()[0]
	if err := h.Install(buildTests(t), at); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		hosttest.Install(t, p, "/usr/local/bin/"+filepath.Base(p), h)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute+*churnFor+2**killedFor)
	defer cancel()
	argv, ran := []string{at, "-test.v", "-test.run", "^" + t.Name() + "$"}, "--- PASS: "+t.Name()
	if _, bench := t.(*testing.B); bench {
		argv, ran = []string{at, "-test.run", "^$", "-test.benchtime", "1x", "-test.bench", "^" + t.Name() + "$"}, t.Name()
	}
	cmd := h.Command(ctx, argv...)
	cmd.Env = append(cmd.Env, insideEnv+"=1", churnEnv+"="+churnFor.String(), fmt.Sprintf("%s=%d", killsEnv, *kills), killedForEnv+"="+killedFor.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("on the host: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), ran) {
		t.Fatalf("it did not run on the host:\n%s", out)
	}
	t.Logf("on the host:\n%s", out)
}

// buildTests builds this package's tests without libc, because the host may have another.
func buildTests(t testing.TB) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "enginetest")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, said)
	}
	return out
}
