package workloads

import (
	"encoding/json"
	"os/exec"
	"testing"

	"drover/internal/migration"
	"drover/internal/workload"
)

// ballast makes a tree whose dump takes long enough to be caught in it.
const ballast = "ballast = bytearray(150 << 20)\nfor i in range(0, len(ballast), 4096): ballast[i] = 1 + i % 251\n"

// begin does one step in a worker of its own that is not waited for.
func (s site) begin(what step) *exec.Cmd {
	s.t.Helper()
	b, err := json.Marshal(what)
	if err != nil {
		s.t.Fatal(err)
	}
	worker := s.Command(s.t.Context(), droverInside, "hand", string(b))
	if err := worker.Start(); err != nil {
		s.t.Fatal(err)
	}
	return worker
}

// startLarge starts a counter with ballast.
func (s site) startLarge(name string) {
	s.t.Helper()
	spec := counterSpec(name)
	spec.Command[len(spec.Command)-1] = ballast + counter
	s.do(step{Do: "start", Spec: spec, Epoch: 1})
	s.waitCount(name)
}

// diesInTheDump begins a step, and kills its worker when CRIU, which then stands still, has begun to write the pages into dir.
func (s site) diesInTheDump(what step, dir string) {
	s.t.Helper()
	worker := s.begin(what)
	s.sh("until [ -s " + dir + "/pages-1.img ]; do :; done; kill -STOP $(pgrep -x criu); kill -9 $(pgrep -f '[h]and')")
	if worker.Wait() == nil {
		s.t.Error("the worker did not die")
	}
	if held := s.sh("grep -c 'frozen 1' " + of(what.Name, groupOf) + "/cgroup.events || true"); held != "0" {
		s.t.Fatal("the dump came to its hold before CRIU was stopped")
	}
}

// goesOn waits until the tree is neither frozen nor stopped by whoever dumped it, and counts.
func (s site) goesOn(name string) {
	s.t.Helper()
	s.until("! pgrep -x criu >/dev/null")
	s.waitCount(name)
	if held := s.sh("grep -c 'frozen 1' " + of(name, groupOf) + "/cgroup.events || true"); held != "0" {
		s.t.Error("the tree is frozen")
	}
}

// A worker may be killed, and be back, while CRIU still dumps. Nothing is undone beneath CRIU, and what it holds then, and nobody has heard of, is
// let go: by the keeper for a checkpoint, and for a move by the session that is taken up.
func TestADumpIsSeenThroughWhoseWorkerHasDied(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	before := snapshot(t, bed)
	alpha.startLarge("counter")

	for _, back := range []string{"before the dump is over", "after it"} {
		alpha.diesInTheDump(step{Do: "checkpoint", Name: "counter", Dir: "/root/left"}, "/root/left")
		if back == "after it" {
			alpha.sh("kill -CONT $(pgrep -x criu)")
			alpha.goesOn("counter") // needs no worker
		}
		s := alpha.do(step{Do: "list"}).List[0]
		if s.State != workload.Running || (s.Trouble != "") != (back == "before the dump is over") {
			t.Errorf("a worker that is back %s says that it is %s, with the trouble %q", back, s.State, s.Trouble)
		}
		if back == "before the dump is over" {
			alpha.sh("kill -CONT $(pgrep -x criu)")
			alpha.goesOn("counter")
		}
		if s := alpha.do(step{Do: "list"}).List[0]; s.Trouble != "" {
			t.Errorf("its trouble is still %q", s.Trouble)
		}
		alpha.sh("rm -r /root/left")
		alpha.do(step{Do: "checkpoint", Name: "counter", Dir: "/root/next", Final: migration.Running}) // nothing is in the way of another
		alpha.sh("rm -r /root/next")
	}

	alpha.diesInTheDump(step{Do: "hold", Name: "counter", Epoch: 1, Migration: "m1"}, movedImages)
	alpha.sh("(sleep 1; kill -CONT $(pgrep -x criu)) >/dev/null 2>&1 &")
	alpha.do(step{Do: "recover", Name: "counter", Epoch: 1, Migration: "m1"})
	alpha.goesOn("counter")
	inSequence(t, alpha.do(step{Do: "logs", Name: "counter"}).Logs)
	alpha.do(step{Do: "rm", Name: "counter", Force: true})
	nothingLeft(t, bed, before)
}

// A keeper that is killed just when a checkpoint's tree is to die leaves nobody who could say whether it does: the images stay.
func TestTheImagesStayOfATreeThatMayDie(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	before := snapshot(t, bed)
	alpha.startLarge("counter")
	worker := alpha.begin(step{Do: "checkpoint", Name: "counter", Dir: "/root/dead", Final: migration.Dead})
	// CRIU stands still from its hold on, while the images are sealed, and has not read yet that it may go on when the keeper dies.
	alpha.until("grep -q 'frozen 1' " + of("counter", groupOf) + "/cgroup.events")
	alpha.sh("kill -STOP $(pgrep -x criu)")
	alpha.until("ss -xpH | awk '/\"criu\"/ && $3 > 0 { told = 1 } END { exit !told }'")
	alpha.sh("kill -9 $(" + of("counter", keeperOf) + ")")
	if err := worker.Wait(); err != nil {
		t.Error(err)
	}
	alpha.sh("kill -CONT $(pgrep -x criu)")
	alpha.until("! pgrep -x criu >/dev/null")
	if s := alpha.do(step{Do: "await-exit", Name: "counter"}).Status; s.State != workload.Exited {
		t.Fatalf("it is %s", s.State)
	}
	alpha.do(step{Do: "restore", Name: "counter", Dir: "/root/dead", Epoch: 1})
	alpha.waitCount("counter")
	inSequence(t, alpha.do(step{Do: "logs", Name: "counter"}).Logs)
	alpha.do(step{Do: "rm", Name: "counter", Force: true})
	alpha.sh("rm -r /root/dead")
	nothingLeft(t, bed, before)
}
