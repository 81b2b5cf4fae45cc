package host_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"drover/internal/errs"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

func TestEachHostHasAWorldOfItsOwn(t *testing.T) {
	bed := hosttest.Bed(t, "alpha", "beta")
	alpha, beta := bed.Hosts()[0], bed.Hosts()[1]
	hosttest.Run(t, alpha, "ping", "-c1", "-W2", "10.77.0.2")
	hosttest.Run(t, beta, "sh", "-c", "echo here > /etc/mark; mkdir /sys/fs/cgroup/mark; ip link add mark type bridge")
	for _, c := range []struct{ what, command, want string }{
		{"its name", "hostname", "alpha"},
		{"its files", "ls /etc/mark 2>/dev/null; true", ""},
		{"its cgroups", "ls -d /sys/fs/cgroup/mark 2>/dev/null; true", ""},
		{"its place among them", "grep ^0: /proc/self/cgroup", "0::/system"},
		{"its network", "ip link show mark 2>/dev/null; true", ""},
		{"its processes", "ls /proc | grep -c ^[0-9]", "4"}, // pid 1, sh, ls, grep
		{"its pid 1", "cat /proc/1/comm", "init"},
		{"its devices", "head -c1 /dev/urandom | wc -c; test -c /dev/net/tun && test -c /dev/ptmx && echo yes", "1\nyes"},
		{"its descriptors", "ls /proc/self/fd | wc -l", "4"}, // 0, 1, 2 and the folder
		{"no way out", "ls -d /proc/1/root/etc/hostname && cat /proc/1/root/etc/hostname", "/proc/1/root/etc/hostname\nalpha"},
	} {
		if got := hosttest.Run(t, alpha, "sh", "-c", c.command); got != c.want {
			t.Errorf("%s: %s said %q, want %q", c.what, c.command, got, c.want)
		}
	}
}

func TestCommandEndsAsTheProgramDid(t *testing.T) {
	alpha := hosttest.Bed(t, "alpha").Hosts()[0]
	var exit *exec.ExitError
	if err := alpha.Command(t.Context(), "sh", "-c", "exit 7").Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exit 7 came out as %v", err)
	}
	if err := alpha.Command(t.Context(), "sh", "-c", "kill -9 $$").Run(); !errors.As(err, &exit) ||
		exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("kill -9 came out as %v", err)
	}
	if _, err := alpha.Run(t.Context(), "no-such-program"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a missing program came out as %v", err)
	}
}

func TestCommandDiesWithItsContext(t *testing.T) {
	alpha := hosttest.Bed(t, "alpha").Hosts()[0]
	ctx, cancel := context.WithCancel(t.Context())
	cmd := alpha.Command(ctx, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sleeps := func() bool { return alpha.Command(t.Context(), "pgrep", "-x", "sleep").Run() == nil }
	hosttest.Eventually(t, "sleep runs", sleeps)
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("a cancelled command ended well")
	}
	hosttest.Eventually(t, "sleep is gone", func() bool { return !sleeps() })
}

func TestOrphansAreReaped(t *testing.T) {
	alpha := hosttest.Bed(t, "alpha").Hosts()[0]
	hosttest.Run(t, alpha, "sh", "-c", "(sleep 0.05 &) ; (true &)")
	hosttest.Eventually(t, "only pid 1 and the onlookers are left", func() bool {
		return hosttest.Run(t, alpha, "ps", "-e", "-o", "stat=,comm=") != "" &&
			!strings.Contains(hosttest.Run(t, alpha, "ps", "-e", "-o", "stat=,comm="), "sleep") &&
			!strings.Contains(hosttest.Run(t, alpha, "ps", "-e", "-o", "stat="), "Z")
	})
}

func TestDaemonHasItsOwnSessionAndFilesOfTheHost(t *testing.T) {
	alpha := hosttest.Bed(t, "alpha").Hosts()[0]
	d, err := alpha.Start(t.Context(), "talker", []string{"sh", "-c", "echo $GREETING; exec sleep 1000"}, "GREETING=hello")
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "the daemon's words are in its log", func() bool { return d.Log() == "hello\n" })
	stat := strings.Fields(hosttest.Run(t, alpha, "cat", "/proc/"+itoa(d.Pid)+"/stat"))
	if stat[5] != itoa(d.Pid) {
		t.Errorf("daemon %d is in session %s", d.Pid, stat[5])
	}
	files := hosttest.Run(t, alpha, "sh", "-c", "readlink /proc/"+itoa(d.Pid)+"/fd/*")
	if files != "/dev/null\n/var/log/talker.log\n/var/log/talker.log" {
		t.Errorf("its files are %q", files)
	}
	if err := d.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := alpha.Start(t.Context(), "nobody", []string{"/no/such/program"}); err == nil {
		t.Error("a daemon that does not exist has started")
	}
}

func TestPausedHostHangsAndGoesOn(t *testing.T) {
	bed := hosttest.Bed(t, "alpha", "beta")
	alpha, beta := bed.Hosts()[0], bed.Hosts()[1]
	ticks := hosttest.Start(t, alpha, "ticker", "sh", "-c", "while :; do echo tick; sleep 0.01; done")
	hosttest.Eventually(t, "the ticker ticks", func() bool { return len(ticks.Log()) > 20 })
	if err := alpha.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	atPause := ticks.Log()
	for range 5 { // the kernel of a paused host still answers; its programs do not
		hosttest.Run(t, beta, "ping", "-c1", "-W2", "10.77.0.1")
	}
	if now := ticks.Log(); now != atPause {
		t.Errorf("it ticked while paused: %d, then %d bytes", len(atPause), len(now))
	}
	if err := alpha.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "the ticker goes on", func() bool { return len(ticks.Log()) > len(atPause) })
}

func TestKilledHostKeepsItsDiskAndLosesItsMemory(t *testing.T) {
	bed := hosttest.Bed(t, "alpha", "beta")
	alpha, beta := bed.Hosts()[0], bed.Hosts()[1]
	d := hosttest.Start(t, alpha, "sleeper", "sleep", "1000")
	hosttest.Run(t, alpha, "sh", "-c", "echo disk > /var/lib/mark; echo memory > /run/mark")
	bootID := func(h *host.Host) string { return hosttest.Run(t, h, "cat", "/proc/sys/kernel/random/boot_id") }
	first := bootID(alpha)
	if len(first) != 36 || first == bootID(beta) {
		t.Errorf("boots %q and %q", first, bootID(beta))
	}
	if err := alpha.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(t.Context()); err == nil {
		t.Error("a program ended well when its host was killed")
	}
	if err := alpha.Command(t.Context(), "true").Run(); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("a command on a dead host said %v", err)
	}
	if err := beta.Command(t.Context(), "ping", "-c1", "-W1", "10.77.0.1").Run(); err == nil {
		t.Error("a dead host answers")
	}
	if err := alpha.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := hosttest.Run(t, alpha, "sh", "-c", "cat /var/lib/mark; ls /run/mark 2>/dev/null; true"); got != "disk" {
		t.Errorf("after the boot: %q", got)
	}
	if bootID(alpha) == first {
		t.Errorf("it has booted again, and its boot is still %s", first)
	}
	hosttest.Run(t, beta, "ping", "-c1", "-W2", "10.77.0.1")
}

func TestInstalledProgramRuns(t *testing.T) {
	alpha := hosttest.Bed(t, "alpha").Hosts()[0]
	hosttest.Install(t, "./testenv/testbed", "/usr/local/bin/testbed", alpha)
	var exit *exec.ExitError
	if err := alpha.Command(t.Context(), "testbed").Run(); !errors.As(err, &exit) || exit.ExitCode() != errs.Invalid.ExitCode() {
		t.Errorf("the installed program ended with %v", err)
	}
}

// TestMain has a second life: it opens a bed, says so and waits to be killed.
func TestMain(m *testing.M) {
	if os.Getenv("HOLD_A_BED") == "" {
		os.Exit(m.Run())
	}
	bed, err := host.NewBed(context.Background(), "doomed")
	if err == nil {
		_, err = bed.Host(context.Background(), "alpha", host.Options{Address: "10.77.0.1/24"})
	}
	if err == nil {
		err = bed.Hosts()[0].Pause(context.Background()) // pid 1 cannot even notice that its owner is gone
	}
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	println(bed.ID)
	select {}
}

func TestSweepRemovesTheBedOfAKilledProcess(t *testing.T) {
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), "HOLD_A_BED=1")
	said, err := owner.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var id string
	hosttest.Eventually(t, "the bed is open", func() bool {
		b := make([]byte, 4096)
		n, _ := said.Read(b)
		for line := range strings.Lines(string(b[:n])) {
			if strings.HasPrefix(line, "doomed-") {
				id = strings.TrimSpace(line)
			}
		}
		return id != ""
	})
	if listed(t, id) != "open" {
		t.Fatalf("bed %s is %s", id, listed(t, id))
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	if err := host.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if listed(t, id) != "gone" {
		t.Errorf("after the sweep bed %s is %s", id, listed(t, id))
	}
	leftovers, err := filepath.Glob("/sys/fs/cgroup/*/drover-testbed/" + id)
	if err != nil || len(leftovers) > 0 {
		t.Errorf("cgroups are left: %v, %v", leftovers, err)
	}
}

func listed(t *testing.T, id string) string {
	t.Helper()
	beds, err := host.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range beds {
		if b.ID == id && b.Alive {
			return "open"
		} else if b.ID == id {
			return "dead"
		}
	}
	return "gone"
}
