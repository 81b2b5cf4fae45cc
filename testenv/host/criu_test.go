package host_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

// What the test bed promises to those who build on it: criu dumps and restores trees on a host's root, in the host's own
// namespaces and in ones of their own, and the victims go on without a fault.

// criu runs it in the host; on failure it shows what criu logged.
func criu(t *testing.T, h *host.Host, args string) {
	t.Helper()
	script := fmt.Sprintf("criu %s -v4 -o log || { grep -a -e Error -e Warn /images/log >&2; exit 1; }", args)
	hosttest.Run(t, h, "sh", "-ec", script)
}

// report is the last whole line of a daemon's log.
func report(d *host.Daemon) (r struct {
	Beat, Rounds, Written, Faults float64
	Fault                         string
}) {
	lines := strings.Split(d.Log(), "\n")
	if len(lines) > 1 {
		_ = json.Unmarshal([]byte(lines[len(lines)-2]), &r)
	}
	return r
}

func TestCriuMovesVictimsOnAHostsRoot(t *testing.T) {
	for _, c := range []struct {
		name string
		argv []string
	}{
		{"a tree of three", []string{"counter", "-say", "20ms", "-status", "/var/lib/status"}},
		{"50 processes and 400 threads", []string{"counter", "-say", "20ms", "-processes", "50", "-threads", "8", "-pause", "200ms"}},
		{"memory that changes", []string{"dirtier", "-say", "20ms", "-memory", "8M", "-working-set", "2M"}},
		{"memory that is shared", []string{"shm", "-say", "20ms", "-size", "64K"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			alpha := hosttest.Bed(t, "alpha").Hosts()[0]
			hosttest.Install(t, "./testenv/victims/"+c.argv[0], "/usr/local/bin/"+c.argv[0], alpha)
			d := hosttest.Start(t, alpha, "victim", c.argv...)
			progress := func() float64 { r := report(d); return r.Beat + r.Rounds + r.Written }
			hosttest.Eventually(t, "it runs", func() bool { return progress() > 0 })

			hosttest.Run(t, alpha, "mkdir", "/images")
			criu(t, alpha, fmt.Sprintf("dump -t %d -D /images", d.Pid))
			if err := d.Wait(t.Context()); err == nil {
				t.Error("it ended well, so it was not killed by the dump")
			}
			atDump := progress()
			criu(t, alpha, "restore -D /images -d")
			hosttest.Eventually(t, "it goes on", func() bool { return progress() > atDump })
			if r := report(d); r.Faults > 0 {
				t.Errorf("%v faults, the first: %s", r.Faults, r.Fault)
			}
		})
	}
}

func TestCriuMovesATreeWithItsOwnMountNamespace(t *testing.T) {
	alpha := hosttest.Bed(t, "alpha").Hosts()[0]
	hosttest.Install(t, "./testenv/victims/counter", "/usr/local/bin/counter", alpha)
	// Not with --kill-child: a death signal is part of what criu restores, and would strike when criu, the new parent, is done.
	const container = `set -e
		mkdir -p /srv/tree; mount --make-rprivate /; mount --bind / /srv/tree; cd /srv/tree
		mount -t proc proc proc; mount -t tmpfs tmp tmp; mount -t tmpfs dev dev; mknod -m 666 dev/null c 1 3
		pivot_root . mnt; umount -l /mnt
		exec setsid counter -say 20ms </dev/null >/var/log/tree.log 2>&1`
	outer := hosttest.Start(t, alpha, "outer", "unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "sh", "-c", container)
	lines := func() int { return strings.Count(hosttest.Run(t, alpha, "cat", "/var/log/tree.log"), "\n") }
	hosttest.Eventually(t, "it counts", func() bool {
		return alpha.Command(t.Context(), "test", "-s", "/var/log/tree.log").Run() == nil
	})
	root := hosttest.Run(t, alpha, "pgrep", "-P", itoa(outer.Pid))

	hosttest.Run(t, alpha, "sh", "-ec", "mkdir -p /images /srv/restored; mount --bind / /srv/restored; mount --make-private /srv/restored")
	criu(t, alpha, "dump -D /images --manage-cgroups=ignore -t "+root)
	if err := outer.Wait(t.Context()); err == nil {
		t.Error("it ended well, so it was not killed by the dump")
	}
	atDump := lines()
	criu(t, alpha, "restore -D /images --manage-cgroups=ignore --root /srv/restored -d")
	hosttest.Eventually(t, "it goes on", func() bool { return lines() > atDump+2 })
	if log := hosttest.Run(t, alpha, "tail", "-n1", "/var/log/tree.log"); !strings.Contains(log, `"faults":0`) {
		t.Errorf("it says %s", log)
	}
}
