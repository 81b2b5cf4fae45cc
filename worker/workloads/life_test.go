package workloads

import (
	"strings"
	"testing"
	"time"

	"drover/internal/workload"
)

func TestAFailingStartSaysWhyAndLeavesNothing(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	alpha.sh("echo hello > /srv/file; mkdir /srv/empty")
	before := snapshot(t, bed)
	with := func(f func(*workload.Spec)) workload.Spec { s := sleeper("w"); f(&s); return s }
	for _, c := range []struct {
		why  string
		spec workload.Spec
		kind string
		says string
	}{
		{"a command that is not there", with(func(s *workload.Spec) { s.Command = []string{"nosuch"} }), "not-found", "nosuch is not there"},
		{"a command that cannot be executed", with(func(s *workload.Spec) { s.Command = []string{"/srv/file"} }), "refused", "/srv/file"},
		{"a command that is a directory", with(func(s *workload.Spec) { s.Command = []string{"/srv"} }), "refused", "is a directory"},
		{"a root that is not there", with(func(s *workload.Spec) { s.Rootfs = "/srv/nowhere" }), "not-found", "/srv/nowhere"},
		{"a root without the command", with(func(s *workload.Spec) { s.Rootfs = "/srv/empty" }), "not-found", "sleep is not there"},
		{"a working directory that is not there", with(func(s *workload.Spec) { s.Dir = "/nowhere" }), "not-found", "/nowhere"},
		{"a user by name", with(func(s *workload.Spec) { s.User = "redis" }), "invalid", "uid[:gid]"},
		{"a volume that is a file", with(func(s *workload.Spec) {
			s.Volumes = []workload.Volume{{Host: "/srv/file", Inside: "/data"}}
		}), "refused", "/srv/file"},
		{"a shared volume that is not there", with(func(s *workload.Spec) {
			s.Volumes = []workload.Volume{{Host: "/srv/nfs", Inside: "/data", Shared: true}}
		}), "not-found", "/srv/nfs"},
		{"an address that no link can carry", with(func(s *workload.Spec) { s.Address = "192.168.77.5/24" }), "refused", "192.168.77"},
	} {
		o := alpha.try(step{Do: "start", Spec: c.spec, Epoch: 1})
		if o.Kind != c.kind || !strings.Contains(o.Error, c.says) || strings.Contains(o.Error, "\n") {
			t.Errorf("%s: got %q (%s), want a line of kind %s that says %q", c.why, o.Error, o.Kind, c.kind, c.says)
		}
	}
	nothingLeft(t, bed, before)
	if list := alpha.do(step{Do: "list"}).List; len(list) != 0 {
		t.Errorf("listed after it failed to start: %+v", list)
	}
}

func TestATreeHasAWorldOfItsOwn(t *testing.T) {
	_, sites := newSites(t, "alpha")
	alpha := sites[0]
	alpha.sh("mkdir -p /srv/shared && echo hello > /srv/shared/file")
	alpha.do(step{Do: "start", Epoch: 1, Spec: workload.Spec{
		Name: "world", Kind: workload.Run, Dir: "/tmp", User: "33:33", Env: []string{"COLOUR=blue"}, Address: "10.77.0.50/24",
		Volumes: []workload.Volume{{Host: "/srv/shared", Inside: "/mnt/deep/down", Shared: true}},
		Command: []string{"sh", "-c", `echo pid $$; id -u; pwd; hostname; cat /mnt/deep/down/file; env | sort | cut -d= -f1 | tr '\n' ' '; echo
			ls /proc/self/fd | tr '\n' ' '; echo; ls /sys | wc -l; grep -E 'SigBlk|SigIgn' /proc/self/status | cut -f2 | tr '\n' ' '; echo
			ip -o -4 addr show eth0 | awk '{print $4}'; cut -d' ' -f5 /proc/self/mountinfo | sort | tr '\n' ' '; echo; echo oops >&2; echo again >> /dev/stdout; exit 3`},
	}})
	s := alpha.do(step{Do: "await-exit", Name: "world"}).Status
	if s.State != workload.Exited || s.ExitCode == nil || *s.ExitCode != 3 || s.Exited.IsZero() {
		t.Errorf("the end was recorded as %+v", s)
	}
	got := alpha.do(step{Do: "logs", Name: "world"}).Logs
	want := strings.Join([]string{
		"pid 1", "33", "/tmp", "world", "hello", "COLOUR HOME PATH PWD ", "0 1 2 3 ", "0", "0000000000000000 0000000000000000 ", "10.77.0.50/24",
		"/ /dev /dev/drover /dev/pts /dev/shm /mnt/deep/down /proc ", "again", "",
	}, "\n")
	if got != want {
		t.Errorf("the tree saw\n%s\nwant\n%s", got, want)
	}
}

func TestStopKillsWhatDoesNotHeedTheSignal(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	before := snapshot(t, bed)
	alpha.do(step{Do: "start", Spec: sleeper("deaf"), Epoch: 1}) // pid 1 of a namespace: SIGTERM without a handler is not delivered
	if s := alpha.do(step{Do: "stop", Name: "deaf", Grace: 100 * time.Millisecond}).Status; s.State != workload.Exited || s.Signal != 9 || s.ExitCode != nil {
		t.Errorf("stopped as %+v", s)
	}
	polite := sleeper("polite")
	polite.Command = []string{"python3", "-c", "import signal,sys,time; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7)); print('ready', flush=True)\nwhile True: time.sleep(9)"}
	alpha.do(step{Do: "start", Spec: polite, Epoch: 1})
	alpha.until("[ -s /var/lib/drover/workloads/polite/output/stdout ]")
	if s := alpha.do(step{Do: "stop", Name: "polite", Signal: 10}).Status; s.State != workload.Exited || s.ExitCode == nil || *s.ExitCode != 7 {
		t.Errorf("stopped as %+v", s)
	}
	for _, name := range []string{"deaf", "polite"} {
		alpha.do(step{Do: "stop", Name: name}) // repeating it is no error
		alpha.do(step{Do: "rm", Name: name})
		if o := alpha.try(step{Do: "get", Name: name}); o.Kind != "not-found" {
			t.Errorf("%s is still known: %+v", name, o)
		}
	}
	nothingLeft(t, bed, before)
}

func TestAStartIsIdempotentByNameSpecAndEpoch(t *testing.T) {
	_, sites := newSites(t, "alpha")
	alpha := sites[0]
	first := alpha.do(step{Do: "start", Spec: sleeper("w"), Epoch: 2}).Status
	if again := alpha.do(step{Do: "start", Spec: sleeper("w"), Epoch: 2}).Status; again.Pid != first.Pid {
		t.Errorf("a repeated start made process %d beside %d", again.Pid, first.Pid)
	}
	other := sleeper("w")
	other.Command = []string{"sleep", "2000"}
	for why, s := range map[string]step{
		"another spec":   {Do: "start", Spec: other, Epoch: 2},
		"another epoch":  {Do: "start", Spec: sleeper("w"), Epoch: 3},
		"an older epoch": {Do: "start", Spec: sleeper("w"), Epoch: 1},
	} {
		if o := alpha.try(s); o.Kind != "conflict" {
			t.Errorf("%s: %+v", why, o)
		}
	}
	alpha.do(step{Do: "rm", Name: "w", Force: true})
	if o := alpha.try(step{Do: "start", Spec: sleeper("w"), Epoch: 1}); o.Kind != "conflict" {
		t.Errorf("the epoch was forgotten with the workload: %+v", o)
	}
}

func TestATreeOutlivesItsKeeperAndItsEndIsStillRecorded(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	before := snapshot(t, bed)
	spec := sleeper("w")
	spec.Command = []string{"python3", "-c", "import signal,sys,time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); print('ready', flush=True)\nwhile True: time.sleep(9)"}
	was := alpha.do(step{Do: "start", Spec: spec, Epoch: 1}).Status
	alpha.until("[ -s /var/lib/drover/workloads/w/output/stdout ]")
	alpha.sh("kill -9 $(pgrep -f '[d]rover keeper run /run/drover/keepers/w')")
	is := alpha.do(step{Do: "stop", Name: "w"}).Status // a worker that finds no keeper starts another
	if is.State != workload.Exited || is.Signal != 0 {
		t.Errorf("process %d, whose keeper died, ended as %+v", was.Pid, is)
	}
	if is.ExitCode != nil && *is.ExitCode != 4 { // a kernel before 6.15 cannot say
		t.Errorf("the recorded exit code is %d", *is.ExitCode)
	}
	alpha.do(step{Do: "rm", Name: "w"})
	nothingLeft(t, bed, before)
}

func TestATreesEndWithoutAWorkerIsFoundLater(t *testing.T) {
	_, sites := newSites(t, "alpha")
	alpha := sites[0]
	spec := sleeper("w")
	spec.Command = []string{"sh", "-c", "exit 9"}
	alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
	alpha.until("grep -q '\"exited\":true' /run/drover/keepers/w/state.json || ! test -e /run/drover/keepers/w")
	if s := alpha.do(step{Do: "await-exit", Name: "w"}).Status; s.State != workload.Exited || s.ExitCode == nil || *s.ExitCode != 9 {
		t.Errorf("recorded as %+v", s)
	}
}

// A worker that dies between recording a tree's end and clearing its place leaves that to the next. What has been cleared is let be: its address may be
// another's by then.
func TestWhatStandsForATreeThatEndedIsCleared(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	before := snapshot(t, bed)
	spec := adopted("w", workload.Find{Pid: alpha.startPlain("w")})
	spec.Address = "10.77.0.50/24"
	alpha.do(step{Do: "start", Spec: spec, Epoch: 1})
	alpha.sh(`f=/var/lib/drover/workloads/w/record.json; sed -i 's/"state": *"running"/"state":"exited","uncleared":true/' $f; grep -q uncleared $f`)
	alpha.sh("pkill -9 -f '[p]ython3 /srv/w.py'")
	alpha.until("! pgrep -f '[p]ython3 /srv/w.py'")
	list := func() []workload.Status { return alpha.do(step{Do: "list"}).List }
	if s := list(); len(s) != 1 || s[0].State != workload.Exited {
		t.Errorf("listed as %+v", s)
	}
	alpha.sh("rm /srv/w.*")
	nothingLeft(t, bed, before)

	alpha.sh("ip address add 10.77.0.50/24 dev lo")
	for _, what := range []step{{Do: "list"}, {Do: "rm", Name: "w"}} { // each is a worker's start, too
		alpha.do(what)
		if got := alpha.sh("ip -o address show to 10.77.0.50"); got == "" {
			t.Errorf("%s took an address off the host that is somebody else's by now", what.Do)
		}
	}
	alpha.sh("ip address delete 10.77.0.50/24 dev lo")
}
