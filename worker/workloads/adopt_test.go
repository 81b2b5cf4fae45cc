package workloads

import (
	"strconv"
	"strings"
	"testing"

	"drover/internal/migration"
	"drover/internal/workload"
)

// plainCounter is a tree of two processes that counts in /var/log of its host.
const plainCounter = `
import os, time, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if os.fork() == 0:
    while True: time.sleep(1)
n = 0
while True:
    n += 1
    print(n, flush=True)
    time.sleep(0.02)
`

// startPlain starts a tree as an administrator would, in the host's own namespaces and with a log of its own.
func (s site) startPlain(name string) int {
	s.t.Helper()
	s.sh("cat > /srv/" + name + ".py <<'E'\n" + plainCounter + "E")
	s.sh("setsid sh -c 'exec python3 /srv/" + name + ".py </dev/null >>/srv/" + name + ".log 2>&1' & ")
	s.until("[ $(pgrep -fc '[p]ython3 /srv/" + name + ".py') = 2 ]")
	pid, err := strconv.Atoi(s.sh("pgrep -of '[p]ython3 /srv/" + name + ".py'"))
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

func adopted(name string, f workload.Find) workload.Spec {
	return workload.Spec{Name: name, Kind: workload.Adopt, Find: f}
}

func TestAnAdoptedTreeIsWatchedCheckpointedAndMoved(t *testing.T) {
	bed, sites := newSites(t, "alpha", "beta")
	alpha, beta := sites[0], sites[1]
	before := snapshot(t, bed)
	pid := alpha.startPlain("count")
	spec := adopted("count", workload.Find{Pid: pid})
	spec.Address = "10.77.0.50/24"
	s := alpha.do(step{Do: "start", Spec: spec, Epoch: 1}).Status
	if s.Pid != pid || s.Processes != 2 || s.State != workload.Running || !strings.HasSuffix(s.Cgroup, "/drover/count") {
		t.Fatalf("adopted as %+v", s)
	}
	beta.until("ping -c1 -W1 10.77.0.50 >/dev/null")

	alpha.do(step{Do: "checkpoint", Name: "count", Dir: "/root/checkpoint", Final: migration.Dead})
	if s := alpha.do(step{Do: "await-exit", Name: "count"}).Status; s.State != workload.Exited {
		t.Fatalf("dead, it is %+v", s)
	}
	alpha.do(step{Do: "restore", Name: "count", Dir: "/root/checkpoint", Epoch: 1})
	alpha.awaitMore("/srv/count.log")

	alpha.do(step{Do: "hold", Name: "count", Epoch: 1, Migration: "m1"})
	copyMoved(t, alpha, beta)
	beta.sh("true > /srv/count.log") // as a shared file system would have it; the log is opened to append
	beta.do(step{Do: "receive", Spec: spec, Epoch: 1, Migration: "m1"})
	beta.do(step{Do: "accept", Epoch: 2, Migration: "m1"})
	alpha.do(step{Do: "commit", Migration: "m1", Final: migration.Dead})
	beta.awaitMore("/srv/count.log")
	if s := beta.do(step{Do: "get", Name: "count"}).Status; s.State != workload.Running || s.Processes != 2 || s.Pid != pid {
		t.Errorf("the moved tree is %+v", s)
	}
	inSequence(t, alpha.sh("cat /srv/count.log")+"\n"+beta.sh("cat /srv/count.log"))
	alpha.until("ping -c1 -W1 10.77.0.50 >/dev/null")

	beta.do(step{Do: "rm", Name: "count", Force: true})
	alpha.sh("rm -r /root/checkpoint")
	nothingLeft(t, bed, before)
}

func TestATreeIsFoundByItsCgroup(t *testing.T) {
	_, sites := newSites(t, "alpha")
	alpha := sites[0]
	pid := alpha.startPlain("count")
	alpha.sh("mkdir /sys/fs/cgroup/mine && for p in $(pgrep -f '[p]ython3 /srv/count.py'); do echo $p > /sys/fs/cgroup/mine/cgroup.procs; done")
	s := alpha.do(step{Do: "start", Spec: adopted("count", workload.Find{Cgroup: "/mine"}), Epoch: 1}).Status
	if s.Pid != pid || s.Processes != 2 || !strings.HasSuffix(s.Cgroup, "/mine") {
		t.Errorf("a tree alone in its cgroup was adopted as %+v", s)
	}
	alpha.do(step{Do: "rm", Name: "count", Force: true})
	if got := alpha.sh("cat /sys/fs/cgroup/mine/cgroup.procs | wc -l"); got != "0" {
		t.Errorf("%s processes are left in the tree's cgroup", got)
	}
	alpha.sh("rmdir /sys/fs/cgroup/mine") // it was not drover's to remove
}

func TestWhatCannotMoveIsNotAdopted(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	pid := alpha.startPlain("count")
	alpha.sh("mkdir /sys/fs/cgroup/empty")
	alpha.do(step{Do: "start", Spec: sleeper("run"), Epoch: 1})
	alpha.do(step{Do: "start", Spec: adopted("count", workload.Find{Pid: pid}), Epoch: 1})
	keeper := alpha.number("pgrep -f '[d]rover keeper run /run/drover/keepers/run'")
	child := alpha.number("pgrep -P " + itoa(pid))
	sleep := alpha.number("pgrep -x sleep")
	before := snapshot(t, bed)
	for _, c := range []struct {
		why  string
		find workload.Find
		kind string
		says string
	}{
		{"a dead pid", workload.Find{Pid: 4194000}, "not-found", "no living process 4194000"},
		{"the host's init", workload.Find{Pid: 1}, "refused", "init"},
		{"drover's own keeper", workload.Find{Pid: keeper}, "refused", "drover's own"},
		{"a tree that drover runs", workload.Find{Pid: sleep}, "conflict", "workload run already"},
		{"a tree that is adopted already", workload.Find{Pid: pid}, "conflict", "workload count already"},
		{"a part of such a tree", workload.Find{Pid: child}, "conflict", "workload count already"},
		{"a cgroup that is not there", workload.Find{Cgroup: "/nowhere"}, "not-found", "/nowhere"},
		{"an empty cgroup", workload.Find{Cgroup: "/empty"}, "not-found", "no process"},
		{"a unit without systemd", workload.Find{Unit: "cron"}, "refused", "cron"},
	} {
		o := alpha.try(step{Do: "start", Spec: adopted("other", c.find), Epoch: 1})
		if o.Kind != c.kind || !strings.Contains(o.Error, c.says) || strings.Contains(o.Error, "\n") {
			t.Errorf("%s: got %q (%s), want a line of kind %s that says %q", c.why, o.Error, o.Kind, c.kind, c.says)
		}
	}
	nothingLeft(t, bed, before)
	alpha.awaitMore("/srv/count.log")
}

func (s site) number(command string) int {
	s.t.Helper()
	n, err := strconv.Atoi(s.sh(command))
	if err != nil {
		s.t.Fatalf("%s: %v", command, err)
	}
	return n
}
