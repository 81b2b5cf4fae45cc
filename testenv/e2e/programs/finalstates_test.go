package programs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
)

// statusFile is where the counting tree of these tests says how it stands, on a volume: it has the same size all the time.
const statusFile = "/srv/count/status"

// TestFinalStates leaves trees running, stopped and dead, on both sides, and lets them continue.
func TestFinalStates(t *testing.T) {
	s := newStage(t, "counter")
	s.remember(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *stage)
	}{
		{"a checkpoint leaves it running unless told otherwise", checkpointRunning},
		{"a checkpoint leaves it stopped until it is continued", checkpointStopped},
		{"a checkpoint leaves it dead and a restore brings it back", checkpointDead},
		{"a restore leaves it stopped until it is continued", restoreStopped},
		{"a migration leaves the copy stopped until it is continued", migrateStopped},
	} {
		if t.Run(c.name, func(t *testing.T) { c.test(t, s) }) {
			s.nothingLeft(t)
		}
	}
}

// startCounting starts a tree of three processes on alpha.
func startCounting(t *testing.T, s *stage) {
	t.Helper()
	s.do(t, "run", "count", "--host", "alpha", "--volume", "/srv/count:/srv/count", "--", "counter", "-status", statusFile, "-say", "0")
	t.Cleanup(func() {
		s.ask(t, "rm", "--force", "count")
		for _, m := range s.Workers {
			if _, err := m.Run(context.WithoutCancel(t.Context()), "sh", "-c", "rm -rf /srv/count* /var/tmp/image*"); err != nil {
				t.Error(err)
			}
		}
	})
	counts(t, s.alpha)
}

// beat is how far the tree has come, as it says itself; a fault is the test's failure.
func beat(t *testing.T, m *cluster.Member) int {
	t.Helper()
	b, err := os.ReadFile(m.Path(statusFile))
	var r struct{ Beat, Processes, Faults int }
	if err != nil || json.Unmarshal(b, &r) != nil { // not there yet, or just being written
		return 0
	}
	if r.Faults != 0 {
		t.Fatalf("the tree has found faults: %s", b)
	}
	return r.Beat
}

// counts returns when the tree has gone on counting.
func counts(t *testing.T, m *cluster.Member) int {
	t.Helper()
	first := beat(t, m)
	hosttest.Eventually(t, "the tree counts on "+m.Name, func() bool { return beat(t, m) > first+10 })
	return beat(t, m)
}

// states are the states of a host's processes that run a program, by pid and command line.
func (s *stage) states(t *testing.T, m *cluster.Member, program string) map[string]string {
	t.Helper()
	states := map[string]string{}
	for line := range strings.Lines(hosttest.Run(t, m.Host, "ps", "-e", "-o", "stat=,pid=,args=")) {
		f := strings.Fields(line)
		if len(f) > 2 && f[2] == program {
			states[strings.Join(f[1:], " ")] = f[0][:1]
		}
	}
	return states
}

// standsStill fails unless every process is stopped and the tree has not counted on.
func (s *stage) standsStill(t *testing.T, m *cluster.Member) {
	t.Helper()
	first := beat(t, m)
	states := s.states(t, m, "counter")
	if len(states) != 3 {
		t.Errorf("there are %v, want three processes", states)
	}
	for process, state := range states {
		if state != "T" {
			t.Errorf("%s is in state %s, not stopped", process, state)
		}
	}
	if now := beat(t, m); now != first {
		t.Errorf("it counted from %d to %d although it stands still", first, now)
	}
}

func checkpointRunning(t *testing.T, s *stage) {
	startCounting(t, s)
	before := s.workload(t, "count").Status
	s.do(t, "checkpoint", "count", "--dir", "/var/tmp/image")
	if after := s.workload(t, "count").Status; after.State != workload.Running || after.Pid != before.Pid {
		t.Errorf("it was %s with pid %d and is %s with pid %d", before.State, before.Pid, after.State, after.Pid)
	}
	counts(t, s.alpha)
	s.refuses(t, errs.Refused, []string{"/var/tmp/image"}, "checkpoint", "count", "--dir", "/var/tmp/image")
	counts(t, s.alpha)
}

func checkpointStopped(t *testing.T, s *stage) {
	startCounting(t, s)
	s.do(t, "checkpoint", "count", "--dir", "/var/tmp/image", "--final-state", "stopped")
	s.awaitState(t, "count", workload.Stopped)
	s.standsStill(t, s.alpha)
	for range 2 { // the second changes nothing
		s.do(t, "continue", "count")
		s.awaitState(t, "count", workload.Running)
		counts(t, s.alpha)
	}
}

func checkpointDead(t *testing.T, s *stage) {
	startCounting(t, s)
	s.do(t, "checkpoint", "count", "--dir", "/var/tmp/image", "--final-state", "dead")
	s.awaitState(t, "count", workload.Exited)
	last := beat(t, s.alpha)
	s.refuses(t, errs.Conflict, []string{"count"}, "continue", "count")
	s.do(t, "restore", "count", "--host", "alpha", "--dir", "/var/tmp/image")
	s.awaitState(t, "count", workload.Running)
	if now := counts(t, s.alpha); now <= last {
		t.Errorf("it counts from %d, it had come to %d", now, last)
	}
	s.refuses(t, errs.Conflict, []string{"count"}, "restore", "count", "--host", "alpha", "--dir", "/var/tmp/image")
}

func restoreStopped(t *testing.T, s *stage) {
	startCounting(t, s)
	s.do(t, "checkpoint", "count", "--dir", "/var/tmp/image", "--final-state", "dead")
	s.awaitState(t, "count", workload.Exited)
	s.do(t, "restore", "count", "--host", "alpha", "--dir", "/var/tmp/image", "--final-state", "stopped")
	s.awaitState(t, "count", workload.Stopped)
	s.standsStill(t, s.alpha)
	s.do(t, "continue", "count")
	s.awaitState(t, "count", workload.Running)
	counts(t, s.alpha)
}

func migrateStopped(t *testing.T, s *stage) {
	startCounting(t, s)
	s.move(t, "count", "beta", "--final-state", "stopped")
	if w := s.awaitState(t, "count", workload.Stopped); w.Owner != "beta" {
		t.Errorf("it is on %s", w.Owner)
	}
	s.standsStill(t, s.beta)
	s.do(t, "continue", "count")
	s.awaitState(t, "count", workload.Running)
	counts(t, s.beta)
}

// TestASourceThatIsLeftStoppedIsFenced has a stage of its own: the fenced tree goes with it.
func TestASourceThatIsLeftStoppedIsFenced(t *testing.T) {
	s := newStage(t, "counter")
	startCounting(t, s)
	s.move(t, "count", "beta", "--source-final-state", "stopped")
	if w := s.awaitState(t, "count", workload.Running); w.Owner != "beta" {
		t.Errorf("it is on %s", w.Owner)
	}
	counts(t, s.beta)
	fenced := s.states(t, s.alpha, "counter")
	if len(fenced) != 3 {
		t.Errorf("at the source there are %v, want three processes", fenced)
	}
	for process, state := range fenced {
		if state != "T" {
			t.Errorf("at the source %s is in state %s, not stopped", process, state)
		}
	}
	s.refuses(t, errs.Refused, []string{"count", "alpha"}, "migrate", "count", "--to", "alpha") // there it would meet its old self
	counts(t, s.beta)
}

// TestWhatWasStoppedBeforeStaysStopped has one of two sleepers stopped, by hand, when the tree is stopped and continued.
func TestWhatWasStoppedBeforeStaysStopped(t *testing.T) {
	s := newStage(t)
	s.remember(t)
	s.do(t, "run", "pair", "--host", "alpha", "--", "sh", "-c", "sleep 7001 & sleep 7002 & wait")
	sleepers := func(m *cluster.Member) (states [2]string, first string) {
		for process, state := range s.states(t, m, "sleep") {
			pid, args, _ := strings.Cut(process, " ")
			switch args {
			case "sleep 7001":
				states[0], first = state, pid
			case "sleep 7002":
				states[1] = state
			}
		}
		return states, first
	}
	is := func(m *cluster.Member, want [2]string) {
		t.Helper()
		hosttest.Eventually(t, fmt.Sprintf("on %s the sleepers are %v", m.Name, want), func() bool {
			states, _ := sleepers(m)
			return states == want
		})
	}
	is(s.alpha, [2]string{"S", "S"})
	_, first := sleepers(s.alpha)
	hosttest.Run(t, s.alpha.Host, "kill", "-STOP", first)
	is(s.alpha, [2]string{"T", "S"})

	s.do(t, "checkpoint", "pair", "--dir", "/var/tmp/image", "--final-state", "stopped")
	is(s.alpha, [2]string{"T", "T"})
	s.do(t, "continue", "pair")
	is(s.alpha, [2]string{"T", "S"})
	s.move(t, "pair", "beta")
	is(s.beta, [2]string{"T", "S"})
	s.move(t, "pair", "alpha", "--final-state", "stopped")
	is(s.alpha, [2]string{"T", "T"})
	s.do(t, "continue", "pair")
	is(s.alpha, [2]string{"T", "S"})
	s.do(t, "rm", "--force", "pair")
	hosttest.Run(t, s.alpha.Host, "rm", "-r", "/var/tmp/image")
	s.nothingLeft(t)
}
