package programs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
	"drover/testenv/rootfs"
)

// least are the capabilities of the drop-in for a worker that has the least, as setpriv calls them.
func least(t *testing.T) (names []string) {
	t.Helper()
	root, err := rootfs.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "configs/systemd/drover-worker-least.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if set, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			for _, name := range strings.Fields(set) {
				names = append(names, strings.ToLower(strings.TrimPrefix(name, "CAP_")))
			}
		}
	}
	return names
}

// bounded is what a command line begins with for the program to have no capabilities but those.
func bounded(names []string) []string {
	return []string{"setpriv", "--bounding-set", "-all,+" + strings.Join(names, ",+")}
}

// without is bounded for a program that has all that this machine gives but one.
func without(name string) []string { return []string{"setpriv", "--bounding-set", "-" + name} }

// everything is a needy that has all that it can have, but for what takes one of those that the least has not.
var everything = []string{"needy", "a port below 1024", "a watch", "a deleted file", "locked memory", "a terminal", "a private file", "a semaphore", "a high priority", "a bound"}

// TestAWorkerOfTheLeastMovesTrees runs workers under the shipped drop-in and does with trees of theirs all that is done with trees.
func TestAWorkerOfTheLeastMovesTrees(t *testing.T) {
	s := newStageUnder(t, bounded(least(t)), "counter", "needy")
	s.remember(t)
	for _, p := range []struct {
		name string
		test func(*testing.T, *stage)
	}{
		{"a redis with a client that counts", redisMoves},
		{"an nginx with its workers", nginxMoves},
		{"a postgres in the middle of a transaction", postgresMoves},
		{"a needy tree", needyMoves},
		{"a tree that was adopted", limitedIsAdopted},
		{"a checkpoint", needyIsRestored},
		{"a move that is rolled back", needyIsRolledBack},
	} {
		if t.Run(p.name, func(t *testing.T) { p.test(t, s) }) {
			s.nothingLeft(t)
		}
	}
}

// runNeedy starts a needy on alpha and returns when it has what it needs. Its directory goes with the test.
func runNeedy(t *testing.T, s *stage, args ...string) {
	t.Helper()
	hosttest.Run(t, s.alpha.Host, "sh", "-ec", "mkdir -p /srv/needy/private; chown 33 /srv/needy/private; chmod 700 /srv/needy/private; chmod 777 /srv/needy")
	t.Cleanup(func() { _, _ = s.alpha.Run(t.Context(), "rm", "-rf", "/srv/needy") })
	s.do(t, slices.Concat([]string{"run", "needy", "--host", "alpha", "--volume", "/srv/needy:/data", "--address", "10.77.0.60/24"}, args)...)
	hosttest.Eventually(t, "it has what it needs", func() bool { return strings.Contains(s.do(t, "logs", "needy"), "ready") })
}

// goesOn returns when needy has counted on, on that host.
func goesOn(t *testing.T, h *host.Host) {
	t.Helper()
	counted := func() int {
		text, _ := os.ReadFile(h.Path("/srv/needy/said")) // it may not have come yet
		return strings.Count(string(text), "\n")
	}
	before := counted()
	hosttest.Eventually(t, "needy goes on, on "+h.Name, func() bool { return counted() > before+2 })
}

func needyMoves(t *testing.T, s *stage) {
	runNeedy(t, s, append([]string{"--"}, everything...)...)
	for _, to := range []*host.Host{s.beta.Host, s.alpha.Host} {
		s.move(t, "needy", to.Name, "--fill", "running", "--throttle", "50", "--bandwidth", "100MB")
		goesOn(t, to)
	}
	s.do(t, "rm", "--force", "needy")
}

func limitedIsAdopted(t *testing.T, s *stage) {
	adoptedMovesUnder(t, s, bounded(least(t)))
	for _, m := range s.Workers {
		hosttest.Run(t, m.Host, "rm", "-f", "/srv/old-status", "/var/log/old.log")
	}
}

func needyIsRestored(t *testing.T, s *stage) {
	runNeedy(t, s, append([]string{"--"}, everything...)...)
	s.do(t, "checkpoint", "needy", "--dir", "/var/tmp/needy", "--final-state", "dead")
	defer hosttest.Run(t, s.alpha.Host, "rm", "-r", "/var/tmp/needy")
	s.do(t, "restore", "needy", "--host", "alpha", "--dir", "/var/tmp/needy")
	goesOn(t, s.alpha.Host)
	s.do(t, "rm", "--force", "needy")
}

// needyIsRolledBack after it was frozen: CRIU cannot be done in a millisecond.
func needyIsRolledBack(t *testing.T, s *stage) {
	runNeedy(t, s, append([]string{"--"}, everything...)...)
	if a := s.ask(t, "migrate", "needy", "--to", "beta", "--policy", "must-move", "--downtime", "1ms", "--freeze-deadline", "1ms"); a.code != errs.Aborted.ExitCode() {
		t.Errorf("it ended with %d: %s%s", a.code, a.out, a.complaint)
	}
	goesOn(t, s.alpha.Host)
	s.do(t, "rm", "--force", "needy")
}

// TestATreeThatHoldsMoreThanAWorkerIsRefusedByName lets a worker have all there is and the other the least.
func TestATreeThatHoldsMoreThanAWorkerIsRefusedByName(t *testing.T) {
	s := newStage(t, "counter")
	s.beta.Under = bounded(least(t))
	restart(t, s, s.beta.Name)
	for _, c := range []struct{ user, says string }{
		{"0:0", "holds CAP_LINUX_IMMUTABLE"},
		{"33:33", "may gain CAP_LINUX_IMMUTABLE"},
	} {
		s.do(t, "run", "full", "--host", "alpha", "--user", c.user, "--", "counter", "-say", "20ms")
		s.refuses(t, errs.Refused, []string{"process 1 (counter) " + c.says, "which the worker here has not", "on beta"}, "migrate", "full", "--to", "beta")
		if w := s.workload(t, "full"); w.Status.State != "running" || w.Migration != "" {
			t.Errorf("it is %s, in migration %q", w.Status.State, w.Migration)
		}
		s.do(t, "rm", "--force", "full")
	}
	s.do(t, "run", "little", "--host", "beta", "--", "counter", "-say", "20ms")
	s.move(t, "little", "alpha")
	s.move(t, "little", "beta") // it holds no more than it was started with
}

// restart starts a worker again and returns when it serves.
func restart(t *testing.T, s *stage, name string) {
	t.Helper()
	for _, m := range s.Workers {
		if m.Name != name {
			continue
		}
		serves := func() int { return strings.Count(m.Daemon.Log(), "worker runs") }
		before := serves()
		if err := m.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		hosttest.Eventually(t, name+" serves", func() bool { return serves() > before })
	}
}

// www is a user who is not root.
var www = []string{"setpriv", "--reuid=33", "--regid=33", "--clear-groups"}

// TestEachCapabilityOfTheLeastIsNeeded takes each away in turn and sees what fails: in CRIU itself, on a tree that is started outside of
// drover, or in a worker.
func TestEachCapabilityOfTheLeastIsNeeded(t *testing.T) {
	shown := []string{"fsetid"} // go test ./worker/workloads -run SetGroupID: what fails is silent
	t.Run("by CRIU", func(t *testing.T) {
		alpha := hosttest.Bed(t, "alpha").Hosts()[0]
		if err := alpha.Install(filepath.Join(built, "needy"), "/usr/local/bin/needy"); err != nil {
			t.Fatal(err)
		}
		for _, c := range byCRIU {
			shown = append(shown, c.lacks)
			t.Run(c.lacks, func(t *testing.T) { c.fails(t, alpha) })
		}
	})
	t.Run("by a worker", func(t *testing.T) {
		s := newStage(t)
		shown = append(shown, "sys_nice")
		t.Run("sys_nice", func(t *testing.T) { // CRIU keeps silent: the tree would run on with no priority of its own
			_, err := s.alpha.Run(t.Context(), append(without("sys_nice"), drover, "worker", "--copy-nice", "5")...)
			if err == nil || !strings.Contains(err.Error(), "give it CAP_SYS_NICE") {
				t.Errorf("a worker that is to copy with a lower priority: %v", err)
			}
		})
		for _, c := range byWorker {
			shown = append(shown, c.lacks)
			t.Run(c.lacks, func(t *testing.T) {
				s.alpha.Under = without(c.lacks)
				restart(t, s, s.alpha.Name)
				defer s.ask(t, "rm", "--force", "tree")
				a := s.ask(t, append([]string{"run", "tree", "--host", "alpha"}, c.run...)...)
				if c.then != nil {
					a = s.ask(t, c.then...)
				}
				if a.code == 0 || !strings.Contains(a.complaint, c.says) {
					t.Errorf("it ended with %d, not because of %q: %s%s", a.code, c.says, a.out, a.complaint)
				}
			})
		}
	})
	slices.Sort(shown)
	all := least(t)
	slices.Sort(all)
	if !slices.Equal(shown, all) {
		t.Errorf("shown are %v\nthe least is %v", shown, all)
	}
}

var byWorker = []struct {
	lacks     string
	run, then []string
	says      string
}{
	{"mknod", []string{"--", "sleep", "infinity"}, nil, "make /dev/null: operation not permitted"},
	{"net_raw", []string{"--address", "10.77.0.61/24", "--", "sleep", "infinity"}, nil, "open a packet socket: operation not permitted"},
	{"kill", []string{"--user", "33:33", "--", "sleep", "infinity"}, []string{"stop", "tree"}, "operation not permitted"},
}

// lacking is a CRIU that fails for want of a capability.
type lacking struct {
	lacks string
	under []string // what starts the tree
	tree  string   // what needy has
	at    string   // the operation that fails
	says  string   // in CRIU's log, or on its standard error
}

var byCRIU = []lacking{
	{"chown", nil, "a terminal", "restore", "tty: Can't setup uid 33 gid 5"},
	{"dac_override", nil, "a private file", "restore", "Can't open file data/private/file on restore: Permission denied"},
	{"dac_read_search", nil, "a watch", "dump", "Can't dump that handle"},
	{"fowner", www, "a deleted file", "restore", "Can't set access and modification times on ghost"},
	{"setgid", www, "a deleted file", "restore", "Unable to set real, effective and saved group ID"},
	{"setuid", www, "a deleted file", "restore", "Unable to set real, effective and saved user ID"},
	{"setpcap", without("net_raw"), "a deleted file", "restore", "Unable to drop capability 13"},
	{"net_bind_service", nil, "a port below 1024", "restore", "Can't bind inet socket"},
	{"net_admin", nil, "a port below 1024", "dump", "Failed to lock TCP connection"},
	{"ipc_lock", nil, "locked memory", "restore", "Can't restore"},
	{"ipc_owner", []string{"unshare", "--ipc"}, "a semaphore", "dump", "Failed to get stats for IPC semaphore set: Permission denied"},
	{"sys_chroot", nil, "a deleted file", "restore", "Can't change root"},
	{"sys_ptrace", www, "a deleted file", "dump", "Unable to interrupt task"},
	{"sys_admin", nil, "a deleted file", "restore", "Unable to create a new time namespace: Operation not permitted"},
	{"sys_resource", www, "a deleted file", "dump", "Can't get rlimit"},
	{"sys_time", nil, "a deleted file", "restore", "Unable to set a monotonic clock offset: Operation not permitted"},
}

// CRIU goes by its own name, not by the test bed's wrapper around it, where the wrapper is what spares it the capability. A restorer that
// fails may hang: who waits for its words kills it.
const criuLacks = `cd /images; criu=criu; [ $1 != sys_resource ] || criu=/usr/sbin/criu
{ setpriv --bounding-set -$1 $criu $2 -D /images --manage-cgroups=ignore --tcp-established -v4 -o $3.log; echo ended with $? >end; } >$3.out 2>&1 &
until grep -qaF "$4" $3.log $3.out; do
	[ ! -e end ] || grep -qaF "$4" $3.log $3.out || { cat end; grep -ahE 'Error|Warn' $3.log $3.out | tail -n 8; break; }
done 2>/dev/null
pkill -KILL -x criu; wait`

func (c lacking) fails(t *testing.T, h *host.Host) {
	hosttest.Run(t, h, "sh", "-ec", "rm -rf /images /data; mkdir -p /images /data/private; chown 33 /data/private; chmod 700 /data/private; chmod 777 /data")
	d := hosttest.Start(t, h, "needy", slices.Concat(c.under, []string{"needy", c.tree})...)
	defer hosttest.Run(t, h, "sh", "-c", "pkill -KILL -x needy; rm -f /var/log/needy.log")
	hosttest.Eventually(t, "it has "+c.tree, func() bool { return strings.Contains(d.Log(), "ready") })
	dump := fmt.Sprintf("dump -t %d", d.Pid)
	operation := dump
	if c.at == "restore" {
		operation = "restore -d"
		hosttest.Run(t, h, "sh", "-ec", "cd /images; criu "+dump+" -D /images --manage-cgroups=ignore --tcp-established -o whole.log")
	}
	if said := hosttest.Run(t, h, "sh", "-c", criuLacks, "sh", c.lacks, operation, c.at, c.says); said != "" {
		t.Errorf("without CAP_%s a %s of a tree with %s does not fail with %q: %s", strings.ToUpper(c.lacks), c.at, c.tree, c.says, said)
	}
}
