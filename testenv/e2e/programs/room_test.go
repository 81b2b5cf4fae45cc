package programs

import (
	"os"
	"slices"
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/workload"
	"drover/testenv/host/hosttest"
	workerapi "drover/worker/api"
)

// TestATargetWithoutMemoryIsRefusedBeforeAnythingIsTouched gives beta's worker a limit that the tree does not fit into.
func TestATargetWithoutMemoryIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	s := newStage(t, "counter")
	startCounting(t, s)
	restartWith(t, s, "memory_limit: 3MiB")
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

// restartWith gives beta's worker more of a configuration, and starts it anew.
func restartWith(t *testing.T, s *stage, more string) {
	t.Helper()
	config := s.beta.Path("/etc/drover/worker.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "\n"+more+"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.beta.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestAStoreWithoutRoomIsRefusedOrGoesToADisk gives beta's worker less memory for stores than the tree has, and then a disk.
func TestAStoreWithoutRoomIsRefusedOrGoesToADisk(t *testing.T) {
	s := newStage(t, "counter")
	startCounting(t, s)
	limited := func() bool {
		var hosts []api.Host
		return s.JSON(t.Context(), &hosts, "hosts") == nil && slices.ContainsFunc(hosts, func(h api.Host) bool {
			return h.Name == "beta" && h.State == "up" && h.Facts.Stores != nil && h.Facts.Stores.Memory == 100<<10
		})
	}
	restartWith(t, s, "store_memory: 100KiB")
	hosttest.Eventually(t, "beta is up with its limit", limited)
	s.remember(t)
	a := s.ask(t, "doctor", "count", "--to", "beta")
	a.out = strings.Join(strings.Fields(a.out), " ")
	if a.code != errs.Refused.ExitCode() || !strings.Contains(a.out, "NO-GO memory beta") || !strings.Contains(a.out, "store_spill") {
		t.Errorf("the doctor's exit code is %d:\n%s%s", a.code, a.out, a.complaint)
	}
	s.refuses(t, errs.Refused, []string{"count", "beta", "store"}, "migrate", "count", "--to", "beta")
	s.nothingLeft(t)

	restartWith(t, s, "store_spill: /var/lib/drover/stores")
	hosttest.Eventually(t, "beta is up with its disk", func() bool { return limited() && s.ask(t, "doctor", "count", "--to", "beta").code == 0 })
	s.do(t, "migrate", "count", "--to", "beta")
	counts(t, s.beta)
	if said := s.beta.Daemon.Log(); !strings.Contains(said, "part of the store is on a disk") {
		t.Errorf("nothing of it went to the disk:\n%s", said)
	}
	if left, err := os.ReadDir(s.beta.Path("/var/lib/drover/stores")); err != nil || len(left) > 0 {
		t.Errorf("left on the disk: %v, %v", left, err)
	}
	s.do(t, "migrate", "count", "--to", "alpha") // which has no limit
	counts(t, s.alpha)
}

// TestWhatIsKeptMakesRoomForATreeThatComes: beta has room for one store; what it keeps of a tree that has left is there until
// another one comes.
func TestWhatIsKeptMakesRoomForATreeThatComes(t *testing.T) {
	s := newStage(t)
	s.remember(t)
	for _, name := range []string{"first", "second"} {
		s.do(t, "run", name, "--host", "alpha", "--", "sh", "-c", "x=$(head -c 20000000 /dev/urandom | base64 -w0); echo ${#x}; sleep infinity")
		hosttest.Eventually(t, "it has its memory", func() bool { return strings.Contains(s.do(t, "logs", name), "26666668") })
	}
	restartWith(t, s, "store_memory: 40MiB")
	beta := func() workerapi.HostFacts {
		var hosts []api.Host
		if err := s.JSON(t.Context(), &hosts, "hosts"); err != nil {
			t.Fatal(err)
		}
		return hosts[slices.IndexFunc(hosts, func(h api.Host) bool { return h.Name == "beta" })].Facts
	}
	// A tree that has just made its memory may still be known for more than it has: the doctor says when it fits.
	hosttest.Eventually(t, "beta is up with its limit", func() bool {
		return beta().Stores != nil && s.ask(t, "doctor", "first", "--to", "beta").code == 0 && s.ask(t, "doctor", "second", "--to", "beta").code == 0
	})
	keeps := func(workload string) func() bool {
		return func() bool {
			k := beta().Kept
			return workload == "" && len(k) == 0 || len(k) == 1 && k[0].Workload == workload && k[0].Bytes > 24<<20
		}
	}
	for _, to := range []string{"beta", "alpha"} {
		s.do(t, "migrate", "first", "--to", to)
	}
	hosttest.Eventually(t, "beta says what it keeps", keeps("first"))
	if shown := s.do(t, "show", "host/beta"); !strings.Contains(shown, "of first, until") {
		t.Errorf("beta is shown as\n%s", shown)
	}
	s.do(t, "migrate", "second", "--to", "beta")
	hosttest.Eventually(t, "beta keeps nothing", keeps(""))
	s.do(t, "migrate", "second", "--to", "alpha")
	hosttest.Eventually(t, "beta keeps the other one", keeps("second"))
	for _, name := range []string{"first", "second"} {
		s.do(t, "rm", "--force", name)
	}
	hosttest.Eventually(t, "beta keeps nothing of what is no more", keeps(""))
	s.nothingLeft(t)
}
