package programs

import (
	"os"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/testenv/host/hosttest"
)

// TestATargetWithoutMemoryIsRefusedBeforeAnythingIsTouched gives beta's worker a limit that the tree does not fit into.
func TestATargetWithoutMemoryIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	s := newStage(t, "counter")
	startCounting(t, s)
	config := s.beta.Path("/etc/drover/worker.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "\nmemory_limit: 3MiB\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.beta.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "beta is up with its limit", func() bool {
		out := s.ask(t, "hosts")
		return out.code == 0 && strings.Contains(out.out, "3.1 MB of")
	})
	pid := s.workload(t, "count").Status.Pid
	s.remember(t)

	a := s.ask(t, "doctor", "count", "--to", "beta")
	a.out = strings.Join(strings.Fields(a.out), " ")
	if a.code != errs.Refused.ExitCode() || !strings.Contains(a.out, "NO-GO memory beta") || !strings.Contains(a.out, "3 MiB free") || !strings.Contains(a.out, "MiB needed") {
		t.Errorf("the doctor's exit code is %d:\n%s%s", a.code, a.out, a.complaint)
	}
	s.refuses(t, errs.Refused, []string{"count", "beta", "3 MiB free", "MiB needed"}, "migrate", "count", "--to", "beta")
	s.refuses(t, errs.Refused, []string{"count", "beta", "3 MiB free", "MiB needed"}, "migrate", "count", "--to", "anywhere")
	s.nothingLeft(t)
	if is := s.workload(t, "count"); is.Status.Pid != pid || is.Status.State != workload.Running || is.Owner != "alpha" {
		t.Errorf("the workload had pid %d on alpha and is %s with pid %d on %s", pid, is.Status.State, is.Status.Pid, is.Owner)
	}
	counts(t, s.alpha)
}
