package workloads

import (
	"encoding/json"
	"strings"
	"testing"

	"drover/internal/migration"
	"drover/internal/workload"
	"drover/testenv/host/hosttest"
)

const (
	keeperOf = "pgrep -f '[d]rover keeper run /run/drover/keepers/%' | head -1"
	groupOf  = "/sys/fs/cgroup/drover/%"
)

// of puts a workload's name in place of the % of a pattern.
func of(name, pattern string) string { return strings.ReplaceAll(pattern, "%", name) }

// nobodyHolds kills CRIU, which would undo its work if the keeper died first, and then the keeper.
func (s site) nobodyHolds(name string) {
	s.t.Helper()
	s.sh("kill -9 $(pgrep -x criu); kill -9 $(" + of(name, keeperOf) + ")")
	s.until("! pgrep -x criu >/dev/null")
}

// What a dump has done to sockets and to the network is undone when both who could have undone it have died: for a tree with a network of its
// own, and for one in its host's, where others' locks stay.
func TestAConnectionOutlivesTheDeathOfWhoHeldIt(t *testing.T) {
	bed, sites := newSites(t, "alpha", "gamma")
	alpha, gamma := sites[0], sites[1]
	for what, address := range map[string]string{"a network of its own": "10.77.0.50", "its host's network": "10.77.0.1"} {
		t.Run(what, func(t *testing.T) {
			before := snapshot(t, bed)
			spec := workload.Spec{
				Name: "redis", Kind: workload.Run, Dir: "/data",
				Command: []string{"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""},
				Volumes: []workload.Volume{{Host: "/srv/redis", Inside: "/data"}},
			}
			in := "" // where its network is
			if address == "10.77.0.50" {
				spec.Address = address + "/24"
				in = "nsenter --net=/run/drover/netns/redis "
			}
			alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
			gamma.until("python3 -c 'import socket; socket.create_connection((\"" + address + "\",6379),1)' 2>/dev/null")
			c := hosttest.Start(t, gamma.Host, "client", "python3", "-c", strings.Replace(client, "10.77.0.50", address, 1))
			gamma.until("[ -s /var/log/client.log ]")
			alpha.do(step{Do: "hold", Name: "redis", Epoch: 1, Migration: "m1"})
			alpha.sh("nft add table inet CRIU-of-another")
			alpha.nobodyHolds("redis")

			alpha.do(step{Do: "list"}) // a worker that starts lets nothing go without a verdict
			if frozen := alpha.sh("grep -c 'frozen 1' " + of("redis", groupOf) + "/cgroup.events"); frozen != "1" {
				t.Errorf("the tree runs though nobody has decided")
			}
			alpha.do(step{Do: "recover", Migration: "m1", Epoch: 1})
			gamma.awaitMore("/var/log/client.log")
			if err := c.Stop(t.Context()); err != nil {
				t.Errorf("the client: %v: %s", err, c.Log())
			}
			if left := alpha.sh(in + "nft list tables | grep CRIU || true"); left != "table inet CRIU-of-another" && (in == "" || left != "") {
				t.Errorf("of the dump's locks is left %q", left)
			}
			alpha.sh("nft delete table inet CRIU-of-another")
			alpha.do(step{Do: "rm", Name: "redis", Force: true})
			alpha.sh("rm -rf /srv/redis")
			nothingLeft(t, bed, before)
		})
	}
}

// A worker that dies in a checkpoint leaves a hold that belongs to no migration: nobody will decide on it, and the tree goes on.
func TestACheckpointThatNobodyEndsLetsItsTreeGoOn(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	before := snapshot(t, bed)
	alpha.do(step{Do: "start", Spec: counterSpec("counter"), Epoch: 1})
	for _, c := range []struct {
		dead string
		die  func()
	}{
		{"the worker, its keeper and CRIU", func() { alpha.nobodyHolds("counter") }},
		{"the worker and its keeper", func() {
			alpha.sh("kill -9 $(" + of("counter", keeperOf) + ")")
			alpha.until("! pgrep -x criu >/dev/null")
		}},
		{"the worker", func() {}},
	} {
		alpha.waitCount("counter")
		alpha.do(step{Do: "leave-checkpoint", Name: "counter", Dir: "/root/left"})
		c.die()
		if frozen := alpha.sh("grep -c 'frozen 1' " + of("counter", groupOf) + "/cgroup.events || true"); frozen != "1" {
			t.Errorf("%s died, and the tree runs before anybody has looked", c.dead)
		}
		alpha.do(step{Do: "list"})
		alpha.waitCount("counter")
		alpha.sh("rm -r /root/left")
	}
	inSequence(t, alpha.do(step{Do: "logs", Name: "counter"}).Logs)
	alpha.do(step{Do: "checkpoint", Name: "counter", Dir: "/root/left", Final: migration.Running}) // nothing is in the way of another
	alpha.sh("rm -r /root/left")
	alpha.do(step{Do: "rm", Name: "counter", Force: true})
	nothingLeft(t, bed, before)
}

// What cannot be undone at once, when nobody is left who held the tree, is not forgotten: it is shown, tried again, and nothing else is begun before.
func TestACheckpointThatCannotBeUndoneIsTriedAgain(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	before := snapshot(t, bed)
	alpha.do(step{Do: "start", Spec: counterSpec("counter"), Epoch: 1})
	alpha.waitCount("counter")
	alpha.do(step{Do: "leave-checkpoint", Name: "counter", Dir: "/root/left"})
	alpha.nobodyHolds("counter")
	freezer := of("counter", groupOf) + "/cgroup.freeze"
	alpha.sh("mount --bind /dev/full " + freezer + "; rm -rf /run/mount") // which mount(8) makes
	if s := alpha.do(step{Do: "list"}).List[0]; !strings.Contains(s.Trouble, "tried again") {
		t.Errorf("its trouble is %q", s.Trouble)
	}
	if o := alpha.try(step{Do: "checkpoint", Name: "counter", Dir: "/root/next"}); !strings.Contains(o.Error, "last checkpoint has failed") {
		t.Errorf("another checkpoint: %+v", o)
	}
	if s := alpha.do(step{Do: "mend", Name: "counter", Dir: freezer}).Status; s.Trouble == "" {
		t.Error("it has no trouble after two workers that could not mend it")
	}
	// A keeper that was started meanwhile has the mount in a namespace of its own.
	alpha.sh("nsenter -m -t $(" + of("counter", keeperOf) + ") umount " + freezer + " 2>/dev/null; rm -rf /run/mount")
	alpha.waitCount("counter")
	alpha.do(step{Do: "checkpoint", Name: "counter", Dir: "/root/next"})
	alpha.sh("rm -r /root/left /root/next")
	inSequence(t, alpha.do(step{Do: "logs", Name: "counter"}).Logs)
	alpha.do(step{Do: "rm", Name: "counter", Force: true})
	nothingLeft(t, bed, before)
}

// Worker, keeper and CRIU die when some of the tree's processes are there and the rest is not.
func TestAHalfRestoredTreeIsSwept(t *testing.T) {
	bed, sites := newSites(t, "alpha", "beta")
	alpha, beta := sites[0], sites[1]
	before := snapshot(t, bed)
	spec := counterSpec("counter")
	alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
	alpha.waitCount("counter")
	alpha.do(step{Do: "hold", Name: "counter", Epoch: 1, Migration: "m1"})
	copyMoved(t, alpha, beta)
	receive, err := json.Marshal(step{Do: "receive", Spec: spec, Epoch: 1, Migration: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	left := ""
	for range 10 { // on a busy machine all may be there before the shell has looked
		worker := beta.Command(t.Context(), droverInside, "hand", string(receive))
		if err := worker.Start(); err != nil {
			t.Fatal(err)
		}
		// What is there when the second process appears is kept as it is by the freezer: the rest waits for it.
		left = beta.sh("g=" + of("counter", groupOf) + "; until { read a && read b; } 2>/dev/null < $g/cgroup.procs; do :; done; echo 1 > $g/cgroup.freeze; " +
			"k=$(" + of("counter", keeperOf) + "); kill -9 $(pgrep -x criu -P $k) $k $(pgrep -f '[h]and'); wc -l < $g/cgroup.procs")
		if worker.Wait() != nil {
			break
		}
		beta.do(step{Do: "discard", Migration: "m1"})
		left = ""
	}
	if left == "" {
		t.Fatal("the worker has never died in the middle of it")
	}
	t.Logf("%s processes were left of the tree", left)
	beta.do(step{Do: "list"})
	if ran := beta.sh("cat /var/lib/drover/workloads/counter/output/stdout | wc -l"); ran != alpha.sh("wc -l < /var/lib/drover/workloads/counter/output/stdout") {
		t.Errorf("the copy has counted, to %s", ran)
	}
	beta.do(step{Do: "discard", Migration: "m1"})
	alpha.do(step{Do: "abort", Migration: "m1", Epoch: 1})
	alpha.waitCount("counter")
	inSequence(t, alpha.do(step{Do: "logs", Name: "counter"}).Logs)
	alpha.do(step{Do: "rm", Name: "counter", Force: true})
	nothingLeft(t, bed, before)
}
