package host_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/testenv/host/hosttest"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestSnapshotSeesEverythingThatIsLeftBehind(t *testing.T) {
	bed := hosttest.Bed(t, "alpha", "beta")
	beta := bed.Hosts()[1]
	before, err := bed.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sleeper := hosttest.Start(t, beta, "sleeper", "unshare", "--net", "--pid", "--fork", "--kill-child", "sleep", "1000")
	hosttest.Run(t, beta, "sh", "-c", `set -e
		mkdir /sys/fs/cgroup/left; mkdir -p /run/left /var/lib/left; touch /var/lib/left/file
		mount -t tmpfs left /run/left
		nft add table inet CRIU-left
		ip addr add 10.77.0.50/24 dev eth0; ip link add left type bridge`)
	hosttest.Eventually(t, "the inner sleep runs", func() bool {
		return beta.Command(t.Context(), "pgrep", "-x", "sleep").Run() == nil
	})
	after, err := bed.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	diff := after.Diff(before)
	for _, want := range []string{
		"+ beta: process 1 sleep 1000", "+ beta: cgroup /left/", "+ beta: mount tmpfs on /run/left", "+ beta: network namespace net:[",
		"+ beta: table inet CRIU-left: }", "+ beta: address 10.77.0.50/24 on eth0", "+ beta: link left bridge", "+ beta: file /var/lib/left/file",
	} {
		if !slices.ContainsFunc(diff, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("no %q in:\n%s", want, strings.Join(diff, "\n"))
		}
	}
	if slices.ContainsFunc(diff, func(line string) bool { return strings.Contains(line, "alpha") }) {
		t.Errorf("alpha has changed:\n%s", strings.Join(diff, "\n"))
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := bed.NothingLeft(soon, before, nil); err == nil {
		t.Error("nothing is said to be left")
	}

	if err := sleeper.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	hosttest.Run(t, beta, "sh", "-c", `set -e
		umount /run/left; rmdir /sys/fs/cgroup/left; rm -r /run/left /run/mount /var/lib/left
		nft delete table inet CRIU-left; ip addr del 10.77.0.50/24 dev eth0; ip link del left`)
	later, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := bed.NothingLeft(later, before, nil); err != nil {
		t.Error(err)
	}
}
