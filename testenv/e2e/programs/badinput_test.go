package programs

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/testenv/host/hosttest"
)

// TestBadInputIsRefusedAndChangesNothing asks for what makes no sense or cannot be. Each is one line that names the thing, a next
// step, the exit code that the help promises; and afterwards all is as it was, with the same pid.
func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	s := newStage(t, "counter")
	startCounting(t, s)
	s.do(t, "run", "ended", "--host", "alpha", "--", "true")
	s.awaitState(t, "ended", workload.Exited)
	s.do(t, "checkpoint", "count", "--dir", "/var/tmp/image")
	hosttest.Run(t, s.alpha.Host, "sh", "-c", `cd /var/tmp
		cp -r image image-torn && set -- image-torn/pages-*.img && truncate -s -1 $1
		cp -r image image-headless && rm image-headless/inventory.img
		mkdir image-foreign && echo hello > image-foreign/letter`)
	ceres := s.Coordinators[0]
	for path, content := range map[string]string{
		"/etc/drover/garbage.yaml": "\x00\x01{{{", "/etc/drover/wrong-key.yaml": "listne: :7202\n", "/etc/drover/wrong-type.yaml": "log: {level: [1, 2]}\n",
		"/etc/drover/empty.yaml": "", "/etc/drover/broken.json": `{"listen": `,
		"/etc/drover/plan.yaml": "name: friday\nmigrations:\n  - {workload: count, too: beta}\n",
	} {
		if err := os.WriteFile(ceres.Path(path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pid := s.workload(t, "count").Status.Pid
	s.remember(t)

	keeper := strings.Fields(hosttest.Run(t, s.alpha.Host, "pgrep", "-f", "drover keeper"))[0]
	for _, c := range []struct {
		why   string
		kind  errs.Kind
		names string // words that the error holds, parted by |
		args  string
	}{
		{"an unknown verb", errs.Invalid, "teleport", "teleport count"},
		{"an unknown flag", errs.Invalid, "--fast", "migrate count --to beta --fast"},
		{"no target", errs.Invalid, "--to", "migrate count"},
		{"an unknown workload", errs.NotFound, "nobody", "migrate nobody --to beta"},
		{"a name that can be nobody's", errs.NotFound, "No/Body", "migrate No/Body --to beta"},
		{"an unknown target", errs.NotFound, "omega", "migrate count --to omega"},
		{"the source as the target", errs.Invalid, "count|alpha", "migrate count --to alpha"},
		{"one that has ended", errs.Conflict, "ended", "migrate ended --to beta"},
		{"a final state that there is none", errs.Invalid, "asleep", "migrate count --to beta --final-state asleep"},
		{"a copy that is dead", errs.Invalid, "dead", "migrate count --to beta --final-state dead"},
		{"a source that runs on", errs.Invalid, "running", "migrate count --to beta --source-final-state running"},
		{"no round at all", errs.Invalid, "--max-rounds|0", "migrate count --to beta --max-rounds 0"},
		{"too many rounds", errs.Invalid, "--max-rounds|65", "migrate count --to beta --max-rounds 65"},
		{"a tracker that there is none", errs.Invalid, "magic", "migrate count --to beta --tracker magic"},
		{"a compression that there is none", errs.Invalid, "rar", "migrate count --to beta --compression rar"},
		{"a downtime before it begins", errs.Invalid, "-1s", "migrate count --to beta --downtime -1s"},
		{"the doctor for an unknown host", errs.NotFound, "omega", "doctor count --to omega"},
		{"the doctor for an unknown workload", errs.NotFound, "nobody", "doctor nobody --to beta"},

		{"a name that is taken", errs.Conflict, "count", "run count --host alpha -- sleep 1000"},
		{"a name with capitals", errs.Invalid, "Count", "run Count --host alpha -- sleep 1000"},
		{"nothing to run", errs.Invalid, "COMMAND", "run fresh --host alpha"},
		{"a program that is not there", errs.NotFound, "no-such-program", "run fresh --host alpha -- no-such-program"},
		{"a host that is not there", errs.NotFound, "omega", "run fresh --host omega -- sleep 1000"},
		{"an address without a prefix", errs.Invalid, "10.77.0.50", "run fresh --host alpha --address 10.77.0.50 -- sleep 1000"},
		{"an address of no network here", errs.Refused, "192.0.2.1", "run fresh --host alpha --address 192.0.2.1/24 -- sleep 1000"},
		{"a root that is not there", errs.NotFound, "/srv/nowhere", "run fresh --host alpha --rootfs /srv/nowhere -- sleep 1000"},
		{"a shared volume that is not there", errs.NotFound, "/srv/nfs", "run fresh --host alpha --volume /srv/nfs:/data:shared -- sleep 1000"},

		{"a dead pid", errs.NotFound, "99999", "adopt fresh --host alpha --pid 99999"},
		{"a pid below zero", errs.Invalid, "-5", "adopt fresh --host alpha --pid -5"},
		{"the host's init", errs.Refused, "process 1", "adopt fresh --host alpha --pid 1"},
		{"the worker itself", errs.Refused, "drover", "adopt fresh --host alpha --pid " + strconv.Itoa(s.alpha.Daemon.Pid)},
		{"a keeper", errs.Refused, "drover", "adopt fresh --host alpha --pid " + keeper},
		{"a workload's tree", errs.Conflict, "count", "adopt fresh --host alpha --pid " + strconv.Itoa(pid)},
		{"two trees at once", errs.Invalid, "--pid", "adopt fresh --host alpha --pid 7 --cgroup /x"},
		{"a cgroup that is not there", errs.NotFound, "/no/such", "adopt fresh --host alpha --cgroup /no/such"},
		{"a unit where there is no systemd", errs.Refused, "web.service", "adopt fresh --host alpha --unit web.service"},

		{"a checkpoint into a folder that holds something", errs.Refused, "/var/tmp/image", "checkpoint count --dir /var/tmp/image"},
		{"a checkpoint into a relative folder", errs.Invalid, "image", "checkpoint count --dir image"},
		{"a checkpoint that leaves nonsense", errs.Invalid, "asleep", "checkpoint count --dir /var/tmp/new --final-state asleep"},
		{"a checkpoint of what has ended", errs.Conflict, "ended", "checkpoint ended --dir /var/tmp/new"},
		{"a restore over one that lives", errs.Conflict, "count", "restore count --host alpha --dir /var/tmp/image"},
		{"a restore from nowhere", errs.NotFound, "/var/tmp/nothing", "restore fresh --host alpha --dir /var/tmp/nothing"},
		{"a restore of a torn image", errs.Refused, "/var/tmp/image-torn", "restore fresh --host alpha --dir /var/tmp/image-torn"},
		{"a restore of an image that lacks a file", errs.Refused, "/var/tmp/image-headless", "restore fresh --host alpha --dir /var/tmp/image-headless"},
		{"a restore of something else", errs.Refused, "/var/tmp/image-foreign", "restore fresh --host alpha --dir /var/tmp/image-foreign"},
		{"a restore to dead", errs.Invalid, "dead", "restore fresh --host alpha --dir /var/tmp/image --final-state dead"},

		{"removing what runs", errs.Conflict, "count", "rm count"},
		{"removing nobody", errs.NotFound, "nobody", "rm nobody"},
		{"stopping nobody", errs.NotFound, "nobody", "stop nobody"},
		{"a signal that there is none", errs.Invalid, "WINK", "stop count --signal WINK"},
		{"the output of nobody", errs.NotFound, "nobody", "logs nobody"},
		{"an output that there is none", errs.Invalid, "stdmid", "logs count --stream stdmid"},
		{"continuing nobody", errs.NotFound, "nobody", "continue nobody"},
		{"continuing what has ended", errs.Conflict, "ended", "continue ended"},
		{"continuing it on a host that has nothing of it", errs.NotFound, "beta|count", "continue count --host beta --force"},
		{"continuing it on a host without saying so twice", errs.Refused, "beta|alpha|count", "continue count --host beta"},
		{"removing it from a host that has nothing of it", errs.NotFound, "beta|count", "rm count --host beta"},
		{"removing it from no host", errs.NotFound, "omega", "rm count --host omega"},
		{"removing a coordinator that there is not", errs.NotFound, "pluto", "cluster remove pluto --yes"},
		{"removing the last coordinator", errs.Conflict, "ceres", "cluster remove ceres --yes"},
		{"showing nothing", errs.NotFound, "nobody", "show nobody"},
		{"aborting nothing", errs.NotFound, "nobody", "abort nobody"},
		{"watching nothing", errs.NotFound, "nobody", "watch nobody"},
		{"draining no host", errs.NotFound, "omega", "drain omega"},
		{"cordoning no host", errs.NotFound, "omega", "cordon omega"},
		{"a plan that is not there", errs.NotFound, "/nowhere.yaml", "apply /nowhere.yaml"},
		{"a plan with a wrong key", errs.Invalid, "plan.yaml|too", "apply /etc/drover/plan.yaml"},

		{"a configuration of garbage", errs.Invalid, "garbage.yaml", "worker --config /etc/drover/garbage.yaml"},
		{"a configuration with a wrong key", errs.Invalid, "wrong-key.yaml|listne", "worker --config /etc/drover/wrong-key.yaml"},
		{"a configuration of a wrong type", errs.Invalid, "wrong-type.yaml|log.level", "worker --config /etc/drover/wrong-type.yaml"},
		{"a configuration that is a folder", errs.Invalid, "/etc/drover|directory", "worker --config /etc/drover"},
		{"a configuration of nothing", errs.Invalid, "empty.yaml|empty", "coordinator --config /etc/drover/empty.yaml"},
		{"a configuration of nothing, for a verb", errs.Invalid, "empty.yaml|empty", "hosts --config /etc/drover/empty.yaml"},
		{"a configuration of broken JSON", errs.Invalid, "broken.json|line 1", "hosts --config /etc/drover/broken.json"},
		{"a configuration that is not there", errs.NotFound, "/nowhere.yaml", "worker --config /nowhere.yaml"},
	} {
		t.Run(c.why, func(t *testing.T) {
			s.refuses(t, c.kind, strings.Split(c.names, "|"), strings.Fields(c.args)...)
		})
	}
	s.nothingLeft(t)
	if is := s.workload(t, "count").Status; is.Pid != pid || is.State != workload.Running {
		t.Errorf("the workload had pid %d and is %s with pid %d", pid, is.State, is.Pid)
	}
	counts(t, s.alpha)
	s.do(t, "rm", "ended")
}

// TestWhatIsBeingMovedIsLeftAlone has a move that is held up by a slow link, tries all that would disturb it, and aborts it.
func TestWhatIsBeingMovedIsLeftAlone(t *testing.T) {
	s := newStage(t, "counter")
	s.remember(t)
	startCounting(t, s)
	pid := s.workload(t, "count").Status.Pid
	s.do(t, "migrate", "count", "--to", "beta", "--bandwidth", "1KB", "--compression", "none", "--detach")
	for _, args := range []string{
		"migrate count --to beta", "checkpoint count --dir /var/tmp/image", "stop count", "rm count", "rm --force count", "continue count",
		"restore count --host beta --dir /var/tmp/image", "run count --host beta -- sleep 1000",
	} {
		s.refuses(t, errs.Conflict, []string{"count"}, strings.Fields(args)...)
	}
	s.do(t, "abort", "count")
	again := s.ask(t, "abort", "count")
	if again.code != 0 || !strings.Contains(again.complaint, "has been rolled back already") || !strings.Contains(again.out, "count stays on alpha") {
		t.Errorf("aborted again: exit code %d\n%s%s", again.code, again.out, again.complaint)
	}
	if is := s.awaitState(t, "count", workload.Running); is.Owner != "alpha" || is.Status.Pid != pid {
		t.Errorf("it had pid %d on alpha and has %d on %s", pid, is.Status.Pid, is.Owner)
	}
	counts(t, s.alpha)
	s.do(t, "rm", "--force", "count")
	hosttest.Run(t, s.alpha.Host, "rm", "-r", "/srv/count")
	s.nothingLeft(t)
}
