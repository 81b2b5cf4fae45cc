package programs

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/workload"
	"drover/testenv/host/hosttest"
)

// TestTheLifeOfAWorkload is what becomes of workloads that do not move.
func TestTheLifeOfAWorkload(t *testing.T) {
	s := newStage(t, "counter")
	s.remember(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *stage)
	}{
		{"it runs where it is asked to, and asking twice changes nothing", runsOnce},
		{"it runs in a world of its own", runsApart},
		{"its output can be read, by stream and from the end", hasOutput},
		{"how it ended is recorded", endIsRecorded},
		{"it is stopped by the signal asked for, or killed after the grace", isStopped},
		{"it outlives its worker", outlivesWorker},
		{"what ends while the worker is dead is recorded", endsWithoutWorker},
		{"an adopted tree moves there and back", adoptedMoves},
	} {
		if t.Run(c.name, func(t *testing.T) { c.test(t, s) }) {
			s.nothingLeft(t)
		}
	}
}

func runsOnce(t *testing.T, s *stage) {
	for range 2 {
		s.do(t, "run", "once", "--host", "alpha", "--", "sleep", "1000")
	}
	w := s.workload(t, "once")
	if w.Owner != "alpha" || w.Status.State != workload.Running || w.Status.Processes != 1 {
		t.Errorf("it is %+v", w)
	}
	if list := s.do(t, "workloads"); !strings.Contains(list, "once") || !strings.Contains(list, "alpha") || strings.Count(list, "\n") != 2 {
		t.Errorf("the list is\n%s", list)
	}
	if shown := s.do(t, "show", "once"); !strings.Contains(shown, "sleep 1000") || !strings.Contains(shown, strconv.Itoa(w.Status.Pid)) {
		t.Errorf("it is shown as\n%s", shown)
	}
	var hosts []api.Host
	if err := json.Unmarshal([]byte(s.do(t, "hosts", "--json")), &hosts); err != nil || len(hosts) != 2 {
		t.Fatalf("the hosts are %v, %v", hosts, err)
	}
	for _, h := range hosts {
		if h.State != "up" || h.Facts.Engine.Version == "" || h.Facts.MemoryFree <= 0 {
			t.Errorf("host %s is shown as %+v", h.Name, h)
		}
	}
	s.refuses(t, errs.Conflict, []string{"once"}, "rm", "once")
	s.do(t, "rm", "--force", "once")
	s.refuses(t, errs.NotFound, []string{"once"}, "show", "workload/once")
}

func runsApart(t *testing.T, s *stage) {
	s.do(t, "run", "apart", "--host", "beta", "--address", "10.77.0.60/24", "--env", "SEED=7", "--dir", "/var/tmp", "--user", "65534:65534", "--",
		"sh", "-c", "echo $$ $SEED $(pwd) $(id -u):$(id -g) $(ip -br -4 address show eth0 | tr -s ' '); exec sleep 1000")
	const want = "1 7 /var/tmp 65534:65534 eth0"
	hosttest.Eventually(t, "it has looked around", func() bool { return s.do(t, "logs", "apart") != "" })
	if got := s.do(t, "logs", "apart"); !strings.HasPrefix(got, want) || !strings.Contains(got, "10.77.0.60/24") {
		t.Errorf("it says %q, want %q and its address", got, want)
	}
	s.do(t, "rm", "--force", "apart")
}

func hasOutput(t *testing.T, s *stage) {
	s.do(t, "run", "talker", "--host", "alpha", "--", "sh", "-c", "echo one; echo two; echo three >&2; echo four")
	s.awaitState(t, "talker", workload.Exited)
	for _, c := range []struct{ args, want string }{
		{"--stream stdout", "one\ntwo\nfour\n"},
		{"--stream stderr", "three\n"},
		{"--stream stdout --tail 2", "two\nfour\n"},
		{"--stream stdout --follow", "one\ntwo\nfour\n"},
		{"--stream stderr --json", `{"line":"three"}` + "\n"},
	} {
		if got := s.do(t, append([]string{"logs", "talker"}, strings.Fields(c.args)...)...); got != c.want {
			t.Errorf("logs %s says %q, want %q", c.args, got, c.want)
		}
	}
	s.do(t, "rm", "talker")
}

func endIsRecorded(t *testing.T, s *stage) {
	s.do(t, "run", "seven", "--host", "alpha", "--", "sh", "-c", "exit 7")
	s.do(t, "run", "shot", "--host", "alpha", "--", "sleep", "1000")
	hosttest.Run(t, s.alpha.Host, "kill", "-KILL", strconv.Itoa(s.workload(t, "shot").Status.Pid))
	if w := s.awaitState(t, "seven", workload.Exited); w.Status.ExitCode == nil || *w.Status.ExitCode != 7 || w.Status.Signal != 0 {
		t.Errorf("exit 7 is recorded as %+v", w.Status)
	}
	if w := s.awaitState(t, "shot", workload.Exited); w.Status.Signal != 9 {
		t.Errorf("kill -9 is recorded as %+v", w.Status)
	}
	if list := s.do(t, "workloads"); !strings.Contains(list, "exited (7)") || !strings.Contains(list, "exited (signal 9)") {
		t.Errorf("the list is\n%s", list)
	}
	s.do(t, "rm", "seven")
	s.do(t, "rm", "shot")
}

func isStopped(t *testing.T, s *stage) {
	s.do(t, "run", "polite", "--host", "alpha", "--", "sh", "-c", "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done")
	s.do(t, "run", "deaf", "--host", "alpha", "--", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
	for _, name := range []string{"polite", "deaf"} {
		hosttest.Eventually(t, name+" is ready", func() bool { return s.do(t, "logs", name) != "" })
	}
	for range 2 { // the second changes nothing
		s.do(t, "stop", "polite", "--signal", "USR1")
		s.do(t, "stop", "deaf", "--grace", "100ms")
	}
	if w := s.workload(t, "polite"); w.Status.State != workload.Exited || w.Status.ExitCode == nil || *w.Status.ExitCode != 3 {
		t.Errorf("polite is recorded as %+v", w.Status)
	}
	if w := s.workload(t, "deaf"); w.Status.State != workload.Exited || w.Status.Signal != 9 {
		t.Errorf("deaf is recorded as %+v", w.Status)
	}
	s.do(t, "rm", "polite")
	s.do(t, "rm", "deaf")
}

func outlivesWorker(t *testing.T, s *stage) {
	startCounting(t, s)
	pid := s.workload(t, "count").Status.Pid
	if err := s.alpha.Daemon.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	counts(t, s.alpha)
	if err := s.alpha.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitUp(t)
	if w := s.awaitState(t, "count", workload.Running); w.Status.Pid != pid || w.Status.Processes != 3 {
		t.Errorf("it had pid %d and is now %+v", pid, w.Status)
	}
	s.move(t, "count", "beta")
	counts(t, s.beta)
}

func endsWithoutWorker(t *testing.T, s *stage) {
	s.do(t, "run", "brief", "--host", "alpha", "--", "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
	hosttest.Eventually(t, "it is ready", func() bool { return s.do(t, "logs", "brief") != "" })
	pid := strconv.Itoa(s.workload(t, "brief").Status.Pid)
	if err := s.alpha.Daemon.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	hosttest.Run(t, s.alpha.Host, "kill", "-TERM", pid)
	hosttest.Eventually(t, "it has ended", func() bool { return s.alpha.Command(t.Context(), "kill", "-0", pid).Run() != nil })
	if err := s.alpha.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitUp(t)
	if w := s.awaitState(t, "brief", workload.Exited); w.Status.ExitCode == nil || *w.Status.ExitCode != 5 {
		t.Errorf("it is recorded as %+v", w.Status)
	}
	s.do(t, "rm", "brief")
}

// awaitUp returns when all workers are up and their last start is known, and takes that as how the stage looks: a worker has
// another pid now.
func (s *stage) awaitUp(t *testing.T) {
	t.Helper()
	hosttest.Eventually(t, "all workers are up", func() bool {
		var hosts []api.Host
		if json.Unmarshal([]byte(s.do(t, "hosts", "--json")), &hosts) != nil {
			return false
		}
		for _, h := range hosts {
			if h.State != "up" {
				return false
			}
		}
		return s.ask(t, "show", "host/alpha").code == 0
	})
}

func adoptedMoves(t *testing.T, s *stage) { adoptedMovesUnder(t, s, nil) }

// adoptedMovesUnder is adoptedMoves with a program that starts the tree.
func adoptedMovesUnder(t *testing.T, s *stage, under []string) {
	d := hosttest.Start(t, s.alpha.Host, "old", slices.Concat(under, []string{"counter", "-processes", "3", "-status", "/srv/old-status", "-say", "0"})...)
	t.Cleanup(func() { s.ask(t, "rm", "--force", "old") })
	hosttest.Run(t, s.beta.Host, "sh", "-c", "mkdir -p /srv && head -c 513 /dev/zero > /srv/old-status && touch /var/log/old.log")
	s.do(t, "adopt", "old", "--host", "alpha", "--pid", strconv.Itoa(d.Pid))
	if w := s.workload(t, "old"); w.Status.Pid != d.Pid || w.Status.Processes != 3 {
		t.Errorf("it is adopted as %+v, its pid is %d", w.Status, d.Pid)
	}
	for _, to := range []string{"beta", "alpha"} {
		s.move(t, "old", to)
		hosttest.Eventually(t, "three processes are known on "+to, func() bool { return s.workload(t, "old").Status.Processes == 3 })
		if w := s.workload(t, "old"); w.Owner != to || w.Status.Pid != d.Pid || w.Status.State != workload.Running {
			t.Errorf("moved to %s it is on %s: %+v", to, w.Owner, w.Status)
		}
	}
	s.do(t, "rm", "--force", "old")
}
