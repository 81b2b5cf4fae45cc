package workloads

import (
	"strconv"
	"strings"
	"testing"

	"drover/internal/migration"
	"drover/internal/workload"
	"drover/testenv/host/hosttest"
)

// counter is a tree of three processes with eleven threads that counts on its output and in a volume.
const counter = `
import threading, time, os
def idle():
    while True: time.sleep(0.05)
for i in range(4): threading.Thread(target=idle, daemon=True).start()
for i in range(2):
    if os.fork() == 0:
        for i in range(2): threading.Thread(target=idle, daemon=True).start()
        idle()
n = 0
while True:
    n += 1
    print(n, flush=True)
    with open('/data/count', 'w') as f: f.write(str(n))
    time.sleep(0.02)
`

func counterSpec(name string) workload.Spec {
	return workload.Spec{
		Name: name, Kind: workload.Run, Command: []string{"python3", "-W", "ignore", "-c", counter},
		Volumes: []workload.Volume{{Host: "/srv/" + name, Inside: "/data"}},
	}
}

// waitCount waits until the counter has counted on.
func (s site) waitCount(name string) {
	s.t.Helper()
	out := "/var/lib/drover/workloads/" + name + "/output/stdout"
	was := s.sh("wc -l < " + out)
	s.until("[ $(wc -l < " + out + ") -gt $((" + was + " + 5)) ]")
}

// inSequence checks that lines count from 1 without a gap and without a number twice.
func inSequence(t *testing.T, log string) {
	t.Helper()
	for i, line := range strings.Fields(log) {
		if line != itoa(i+1) {
			t.Fatalf("line %d of the output is %q: something was lost or repeated", i+1, line)
		}
	}
}

func TestAMovedTreeGoesOnWhereItWas(t *testing.T) {
	bed, sites := newSites(t, "alpha", "beta")
	alpha, beta := sites[0], sites[1]
	before := snapshot(t, bed)
	spec := counterSpec("counter")
	alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
	alpha.waitCount("counter")
	was := alpha.do(step{Do: "get", Name: "counter"}).Status
	if was.Processes != 3 || was.Threads != 11 || was.State != workload.Running || was.RSS == 0 {
		t.Fatalf("the tree is %+v", was)
	}

	move(t, spec, alpha, beta, step{Epoch: 1, Migration: "m1", Final: migration.Dead})
	beta.waitCount("counter")
	is := beta.do(step{Do: "get", Name: "counter"}).Status
	if is.Processes != 3 || is.Threads != 11 || is.State != workload.Running || is.Epoch != 2 {
		t.Fatalf("the moved tree is %+v", is)
	}
	inSequence(t, beta.do(step{Do: "logs", Name: "counter"}).Logs)
	// And back, over what the source remembers.
	move(t, spec, beta, alpha, step{Epoch: 2, Migration: "m2", Final: migration.Dead})
	alpha.waitCount("counter")
	inSequence(t, alpha.do(step{Do: "logs", Name: "counter"}).Logs)
	if o := alpha.try(step{Do: "hold", Name: "counter", Epoch: 2, Migration: "m0"}); o.Kind != "conflict" {
		t.Errorf("a migration of an old epoch was let in: %+v", o)
	}
	alpha.do(step{Do: "rm", Name: "counter", Force: true})
	nothingLeft(t, bed, before)
	if left := beta.sh("ls /srv"); left != "" {
		t.Errorf("files left on a host that the workload has left: %s", left)
	}
	if kept := alpha.sh("ls /srv/counter"); kept != "count" {
		t.Errorf("removing the workload has left %q of its volume", kept)
	}
}

// client counts in a redis over one connection until it is told to stop, and says what it saw.
const client = `
import socket, signal, time
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
s = socket.create_connection(("10.77.0.50", 6379))
f = s.makefile("rwb")
n, longest = 0, 0
while not stop:
    t = time.time()
    f.write(b"INCR n\r\n"); f.flush()
    answer = f.readline()
    n += 1
    if answer != b":%d\r\n" % n:
        raise SystemExit("answer %r to request %d" % (answer, n))
    longest = max(longest, time.time() - t)
    if n % 100 == 0: print(n, flush=True)
    time.sleep(0.002)
print("requests", n, "longest", round(longest, 3), flush=True)
`

func TestAConnectionOutlivesTheMoveOfItsAddress(t *testing.T) {
	bed, sites := newSites(t, "alpha", "beta", "gamma")
	alpha, beta, gamma := sites[0], sites[1], sites[2]
	before := snapshot(t, bed)
	spec := workload.Spec{
		Name: "redis", Kind: workload.Run, Address: "10.77.0.50/24", Dir: "/data",
		Command: []string{"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""},
		Volumes: []workload.Volume{{Host: "/srv/redis", Inside: "/data"}},
	}
	alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
	gamma.until("printf 'PING\r\n' | timeout 1 python3 -c 'import socket,sys; s=socket.create_connection((\"10.77.0.50\",6379),1); s.send(b\"PING\\r\\n\"); sys.exit(s.recv(7)!=b\"+PONG\\r\\n\")' 2>/dev/null")
	c := hosttest.Start(t, gamma.Host, "client", "python3", "-c", client)
	gamma.until("[ -s /var/log/client.log ]")

	for i, leg := range []struct{ from, to site }{{alpha, beta}, {beta, alpha}} {
		gamma.awaitMore("/var/log/client.log")
		move(t, spec, leg.from, leg.to, step{Epoch: migration.Epoch(1 + i), Migration: migration.ID("m" + itoa(i)), Final: migration.Dead})
		gamma.awaitMore("/var/log/client.log")
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatalf("the client: %v: %s", err, c.Log())
	}
	t.Log(c.Log())
	alpha.do(step{Do: "rm", Name: "redis", Force: true})
	nothingLeft(t, bed, before)
}

// awaitMore waits until a file has grown by a line.
func (s site) awaitMore(file string) {
	s.t.Helper()
	was := s.sh("wc -l < " + file)
	s.until("[ $(wc -l < " + file + ") -gt " + was + " ]")
}

func TestAnAbortedMoveLeavesTheSourceAsItWas(t *testing.T) {
	bed, sites := newSites(t, "alpha", "beta")
	alpha, beta := sites[0], sites[1]
	before := snapshot(t, bed)
	spec := counterSpec("counter")
	spec.Address = "10.77.0.50/24"
	alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
	alpha.waitCount("counter")
	alpha.do(step{Do: "hold", Name: "counter", Epoch: 1, Migration: "m1"})
	if o := alpha.try(step{Do: "stop", Name: "counter"}); o.Kind != "conflict" {
		t.Errorf("a tree that is being moved could be stopped: %+v", o)
	}
	if o := alpha.try(step{Do: "hold", Name: "counter", Epoch: 1, Migration: "m2"}); o.Kind != "conflict" {
		t.Errorf("a tree was lent twice: %+v", o)
	}
	copyMoved(t, alpha, beta)
	beta.do(step{Do: "receive", Spec: spec, Epoch: 1, Migration: "m1"})
	beta.do(step{Do: "discard", Migration: "m1"})
	alpha.do(step{Do: "abort", Migration: "m1", Epoch: 1})
	alpha.waitCount("counter")
	if s := alpha.do(step{Do: "get", Name: "counter"}).Status; s.State != workload.Running || s.Epoch != 1 || s.Processes != 3 {
		t.Errorf("the source is %+v", s)
	}
	inSequence(t, alpha.do(step{Do: "logs", Name: "counter"}).Logs)
	beta.until("ping -c1 -W1 10.77.0.50 >/dev/null")
	alpha.do(step{Do: "rm", Name: "counter", Force: true})
	nothingLeft(t, bed, before)
}

func TestASourceLeftStoppedStaysFencedUntilItOwnsTheWorkloadAgain(t *testing.T) {
	bed, sites := newSites(t, "alpha", "beta")
	alpha, beta := sites[0], sites[1]
	before := snapshot(t, bed)
	spec := counterSpec("counter")
	alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
	alpha.waitCount("counter")
	move(t, spec, alpha, beta, step{Epoch: 1, Migration: "m1", Final: migration.Stopped})
	beta.waitCount("counter")
	if s := alpha.do(step{Do: "get", Name: "counter"}).Status; s.State != workload.Fenced || s.Processes != 3 {
		t.Errorf("the source is %+v", s)
	}
	count := alpha.sh("wc -l < /var/lib/drover/workloads/counter/output/stdout")
	if o := alpha.try(step{Do: "continue", Name: "counter", Epoch: 2}); o.Kind != "refused" || o.Next == "" {
		t.Errorf("a source that lives elsewhere was continued: %+v", o)
	}
	if o := alpha.try(step{Do: "continue", Name: "counter", Epoch: 1}); o.Kind != "conflict" {
		t.Errorf("it was continued by an order that is out of date: %+v", o)
	}
	if now := alpha.sh("wc -l < /var/lib/drover/workloads/counter/output/stdout"); now != count {
		t.Errorf("the source left stopped counts on: %s, then %s", count, now)
	}
	beta.do(step{Do: "rm", Name: "counter", Force: true})
	if s := alpha.do(step{Do: "continue", Name: "counter", Epoch: 3}).Status; s.Epoch != 3 || s.State != workload.Running {
		t.Errorf("given back, it is %+v", s)
	}
	alpha.waitCount("counter")
	alpha.do(step{Do: "rm", Name: "counter", Force: true})
	nothingLeft(t, bed, before)
}

func TestACopyIsRemovedAndTheWorkloadIsNot(t *testing.T) {
	bed, sites := newSites(t, "alpha", "beta")
	alpha, beta := sites[0], sites[1]
	before := snapshot(t, bed)
	spec := counterSpec("counter")
	alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
	alpha.waitCount("counter")
	move(t, spec, alpha, beta, step{Epoch: 1, Migration: "m1", Final: migration.Stopped})
	if o := beta.try(step{Do: "rm-copy", Name: "counter", Epoch: 2}); o.Kind != "conflict" {
		t.Errorf("the workload itself was removed as a copy: %+v", o)
	}
	beta.waitCount("counter")
	if o := alpha.try(step{Do: "rm-copy", Name: "counter", Epoch: 1}); o.Kind != "conflict" {
		t.Errorf("the copy was removed by an order that is out of date: %+v", o)
	}
	alpha.do(step{Do: "rm-copy", Name: "counter", Epoch: 2})
	if o := alpha.try(step{Do: "rm-copy", Name: "counter", Epoch: 2}); o.Kind != "not-found" {
		t.Errorf("removed twice: %+v", o)
	}
	beta.waitCount("counter")
	beta.do(step{Do: "rm-copy", Name: "counter", Epoch: 3}) // by then another host owns it
	nothingLeft(t, bed, before)
}

func itoa(n int) string { return strconv.Itoa(n) }

func TestAKeepersDeathInItsHoldLosesNothingAndRunsNothing(t *testing.T) {
	_, sites := newSites(t, "alpha", "beta")
	alpha, beta := sites[0], sites[1]
	spec := counterSpec("counter")
	alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
	alpha.waitCount("counter")
	out := "/var/lib/drover/workloads/counter/output/stdout"
	alpha.do(step{Do: "hold", Name: "counter", Epoch: 1, Migration: "m1"})
	held := alpha.sh("wc -l < " + out)
	copyMoved(t, alpha, beta)
	beta.do(step{Do: "receive", Spec: spec, Epoch: 1, Migration: "m1"})
	for _, s := range sites {
		s.sh("kill -9 $(pgrep -f '[d]rover keeper run /run/drover/keepers/counter')")
		s.until("! pgrep -x criu >/dev/null")
	}
	if now := alpha.sh("wc -l < " + out); now != held {
		t.Errorf("the source ran on without a verdict: %s lines, then %s", held, now)
	}
	if now := beta.sh("wc -l < " + out); now != held {
		t.Errorf("the target ran without a verdict: %s lines, then %s", held, now)
	}
	beta.do(step{Do: "discard", Migration: "m1"})
	if left := beta.sh("pgrep -fc '[p]ython3 -W' || true"); left != "0" {
		t.Errorf("%s processes are left on the target", left)
	}
	alpha.do(step{Do: "recover", Migration: "m1", Epoch: 1})
	alpha.waitCount("counter")
	inSequence(t, alpha.do(step{Do: "logs", Name: "counter"}).Logs)
	if s := alpha.do(step{Do: "get", Name: "counter"}).Status; s.State != workload.Running || s.Processes != 3 {
		t.Errorf("the source is %+v", s)
	}
}
