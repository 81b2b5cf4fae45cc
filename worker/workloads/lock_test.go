package workloads

import (
	"strings"
	"testing"

	"drover/internal/migration"
	"drover/internal/workload"
	"drover/testenv/host/hosttest"
)

// hostRedis is a redis in its host's network, where a dump's lock stays when the tree is left stopped.
func hostRedis() workload.Spec {
	return workload.Spec{
		Name: "redis", Kind: workload.Run, Dir: "/data",
		Command: []string{"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""},
		Volumes: []workload.Volume{{Host: "/srv/redis", Inside: "/data"}},
	}
}

// locks says how many locks of dumps stand on the host.
func (s site) locks() string { return s.sh("nft list tables | grep -c CRIU- || true") }

// Whatever becomes of a tree that is left stopped, again, or whose worker dies before it has noted it: it has one lock, and none once it goes on.
func TestATreeThatIsStoppedHasOneLock(t *testing.T) {
	bed, sites := newSites(t, "alpha", "gamma")
	alpha, gamma := sites[0], sites[1]
	before := snapshot(t, bed)
	stopped := func(do, dir string) {
		t.Helper()
		alpha.do(step{Do: do, Name: "redis", Dir: "/root/" + dir, Final: migration.Stopped})
		alpha.sh("rm -rf /root/left; mv /root/" + dir + " /root/left")
	}
	alpha.do(step{Do: "start", Spec: hostRedis(), Epoch: 1})
	gamma.until("python3 -c 'import socket; socket.create_connection((\"10.77.0.1\",6379),1)' 2>/dev/null")
	c := hosttest.Start(t, gamma.Host, "client", "python3", "-c", strings.Replace(client, "10.77.0.50", "10.77.0.1", 1))
	gamma.until("[ -s /var/log/client.log ]")
	for _, is := range []struct {
		what string
		done func()
	}{
		{"stopped twice", func() { stopped("checkpoint", "one"); stopped("checkpoint", "two") }},
		{"stopped, and another checkpoint undone", func() {
			stopped("checkpoint", "one")
			alpha.do(step{Do: "leave-checkpoint", Name: "redis", Dir: "/root/two"})
			alpha.do(step{Do: "list"})
			alpha.sh("rm -r /root/two")
		}},
		{"stopped, which nobody has noted", func() {
			alpha.do(step{Do: "commit-checkpoint", Name: "redis", Dir: "/root/one", Final: migration.Stopped})
			if s := alpha.do(step{Do: "list"}).List[0]; s.State != workload.Stopped {
				t.Errorf("a tree whose final state nobody had noted is %s", s.State)
			}
			alpha.sh("rm -r /root/one")
		}},
	} {
		is.done()
		if n := alpha.locks(); n != "1" {
			t.Errorf("%s, it has %s locks", is.what, n)
		}
		alpha.do(step{Do: "continue", Name: "redis", Epoch: 1})
		if n := alpha.locks(); n != "0" {
			t.Errorf("%s and continued, it has %s locks", is.what, n)
		}
		gamma.awaitMore("/var/log/client.log")
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Errorf("the client: %v: %s", err, c.Log())
	}

	// A move leaves a stopped source stopped: the lock is that of its own dump.
	stopped("checkpoint", "one")
	alpha.do(step{Do: "hold", Name: "redis", Epoch: 1, Migration: "m1", Final: migration.Stopped})
	alpha.do(step{Do: "commit", Name: "redis", Migration: "m1", Final: migration.Stopped})
	if n := alpha.locks(); n != "1" {
		t.Errorf("moved, its source has %s locks", n)
	}
	alpha.do(step{Do: "rm", Name: "redis", Force: true})
	if n := alpha.locks(); n != "0" {
		t.Errorf("removed, it has left %s locks", n)
	}

	alpha.do(step{Do: "start", Spec: hostRedis(), Epoch: 3})
	alpha.until("redis-cli ping >/dev/null 2>&1")
	alpha.do(step{Do: "commit-checkpoint", Name: "redis", Dir: "/root/one", Final: migration.Dead})
	if s := alpha.do(step{Do: "await-exit", Name: "redis"}).Status; s.State != workload.Exited {
		t.Errorf("dead, it is %s", s.State)
	}
	if n := alpha.locks(); n != "0" {
		t.Errorf("dead, it has left %s locks", n)
	}
	alpha.do(step{Do: "rm", Name: "redis"})
	alpha.sh("rm -rf /srv/redis /root/left /root/one")
	nothingLeft(t, bed, before)
}
