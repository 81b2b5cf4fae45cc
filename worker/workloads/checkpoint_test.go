package workloads

import (
	"strings"
	"testing"

	"drover/internal/migration"
	"drover/internal/workload"
)

func TestEveryFinalStateOfACheckpointAndARestore(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	before := snapshot(t, bed)
	alpha.do(step{Do: "start", Spec: counterSpec("counter"), Epoch: 1})
	alpha.waitCount("counter")
	out := "/var/lib/drover/workloads/counter/output/stdout"

	alpha.do(step{Do: "checkpoint", Name: "counter", Dir: "/root/running"})
	alpha.waitCount("counter")

	alpha.do(step{Do: "checkpoint", Name: "counter", Dir: "/root/stopped", Final: migration.Stopped})
	if s := alpha.do(step{Do: "get", Name: "counter"}).Status; s.State != workload.Stopped || s.Processes != 3 {
		t.Errorf("stopped, it is %+v", s)
	}
	if got := alpha.sh("ps -eo stat=,args= | grep '[p]ython3 -W' | cut -c1 | sort -u"); got != "T" {
		t.Errorf("its processes are in state %q, not all stopped", got)
	}
	alpha.do(step{Do: "continue", Name: "counter", Epoch: 1})
	alpha.waitCount("counter")

	report := alpha.do(step{Do: "checkpoint", Name: "counter", Dir: "/root/dead", Final: migration.Dead}).Report
	if report.Bytes == 0 || len(report.Digest) != 64 || report.Final != migration.Dead {
		t.Errorf("the report is %+v", report)
	}
	if s := alpha.do(step{Do: "await-exit", Name: "counter"}).Status; s.State != workload.Exited || s.Signal != 9 {
		t.Errorf("dead, it is %+v", s)
	}
	if modes := alpha.sh("stat -c %a /root/dead; stat -c %a /root/dead/* | sort -u"); modes != "700\n600" {
		t.Errorf("images hold secrets, and have the modes %q", modes)
	}
	count := alpha.sh("wc -l < " + out)

	if s := alpha.do(step{Do: "restore", Name: "counter", Dir: "/root/dead", Final: migration.Stopped, Epoch: 1}).Status; s.State != workload.Stopped || s.Threads != 11 {
		t.Errorf("restored stopped, it is %+v", s)
	}
	if now := alpha.sh("wc -l < " + out); now != count {
		t.Errorf("restored stopped, it counted from %s to %s", count, now)
	}
	alpha.do(step{Do: "continue", Name: "counter", Epoch: 1})
	alpha.waitCount("counter")
	inSequence(t, alpha.do(step{Do: "logs", Name: "counter"}).Logs)

	if o := alpha.try(step{Do: "restore", Name: "counter", Dir: "/root/dead", Epoch: 1}); o.Kind != "conflict" {
		t.Errorf("restored beside the living one: %+v", o)
	}
	alpha.do(step{Do: "stop", Name: "counter", Signal: 9})
	alpha.do(step{Do: "restore", Name: "counter", Dir: "/root/dead", Epoch: 1})
	alpha.waitCount("counter")
	alpha.do(step{Do: "rm", Name: "counter", Force: true})
	alpha.sh("rm -r /root/running /root/stopped /root/dead")
	nothingLeft(t, bed, before)
}

func TestABadCheckpointIsRefusedAndChangesNothing(t *testing.T) {
	bed, sites := newSites(t, "alpha")
	alpha := sites[0]
	alpha.do(step{Do: "start", Spec: sleeper("w"), Epoch: 1})
	alpha.do(step{Do: "checkpoint", Name: "w", Dir: "/root/good"})
	alpha.sh("install -d -o 65534 /root/theirs; install -d -m 770 /root/shared; install -d /root/empty; ln -s /root/empty /root/link; cp -a /root/good /root/older")
	for _, c := range []struct{ dir, final, kind string }{
		{"/root/theirs", "", "refused"}, {"/root/shared", "", "refused"}, {"/root/link", "", "refused"},
		{"/root/good", "", "refused"}, {"relative", "", "invalid"}, {"/no/parent", "", "failed"}, {"/root/x", "frozen", "invalid"},
	} {
		if o := alpha.try(step{Do: "checkpoint", Name: "w", Dir: c.dir, Final: migration.FinalState(c.final)}); o.Kind != c.kind {
			t.Errorf("checkpoint into %s, final state %q: %+v", c.dir, c.final, o)
		}
	}
	if modes := alpha.sh("stat -c '%a %U' /root/theirs /root/shared /root/empty; cd /root && diff -r good older"); modes != "755 nobody\n770 root\n755 root" {
		t.Errorf("refused, and yet they are %q", modes)
	}
	alpha.do(step{Do: "checkpoint", Name: "w", Dir: "/root/empty"})
	alpha.do(step{Do: "rm", Name: "w", Force: true})
	before := snapshot(t, bed)
	for why, c := range map[string]struct{ damage, says string }{
		"a page changed":       {"printf x | dd of=$d/pages-1.img bs=1 seek=100 conv=notrunc 2>/dev/null", "pages-1.img has been changed"},
		"an image cut short":   {"truncate -s -1 $d/core-1.img", "core-1.img has been changed"},
		"an image missing":     {"rm $d/pstree.img", "pstree.img is missing"},
		"an image too many":    {"touch $d/core-99.img", "core-99.img does not belong"},
		"its manifest changed": {"sed -i 's/sleep/sleeq/' $d/drover-manifest.json", "manifest has been changed"},
		"never finished":       {"rm $d/drover-manifest.sha256", "not finished"},
		"not drover's":         {"rm $d/drover-*", "not a checkpoint of drover's"},
		"not there":            {"rm -r $d", "not a directory"},
		"another user's":       {"chown 65534 $d", "belongs to uid 65534"},
		"open to a group":      {"chmod 770 $d", "may be written by others"},
		"an image another's":   {"chown 65534 $d/core-1.img", "core-1.img belongs to uid 65534"},
		"an image open to all": {"chmod 666 $d/core-1.img", "core-1.img may be written by others"},
		"another workload's":   {"true", "is of workload w, not"},
	} {
		alpha.sh("d=/root/bad; cp -a /root/good $d; " + c.damage)
		name := "w"
		if strings.HasPrefix(why, "another") {
			name = "v"
		}
		o := alpha.try(step{Do: "restore", Name: name, Dir: "/root/bad", Epoch: 1})
		if !strings.Contains(o.Error, c.says) || strings.Contains(o.Error, "\n") {
			t.Errorf("%s: %+v, want it to say %q", why, o, c.says)
		}
		alpha.sh("rm -rf /root/bad")
	}
	nothingLeft(t, bed, before)
}
