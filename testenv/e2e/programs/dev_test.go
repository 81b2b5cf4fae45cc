package programs

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
)

// TestDevStartsWithoutAComplaint runs the throwaway cluster on a host of its own, twice, and uses it as the README does.
func TestDevStartsWithoutAComplaint(t *testing.T) {
	bed := hosttest.Bed(t)
	h := hosttest.Host(t, bed, "solo")
	if err := h.Install(filepath.Join(built, "drover"), drover); err != nil {
		t.Fatal(err)
	}
	s := &stage{Cluster: &cluster.Cluster{Bed: bed, Coordinators: []*cluster.Member{{Host: h}}}}
	for _, run := range []string{"dev-1", "dev-2"} { // the second meets what the first has left
		d, err := h.Start(t.Context(), run, []string{drover, "dev"})
		if err != nil {
			t.Fatal(err)
		}
		hosttest.Eventually(t, "dev says how to use it", func() bool { return strings.Contains(d.Log(), "DROVER_CONFIG=") })
		said := d.Log()
		for line := range strings.Lines(said) {
			if strings.Contains(line, "level=") && !strings.Contains(line, `lacks="CAP_SYS_RESOURCE (`) { // which this machine may withhold
				t.Errorf("it complains at its start: %s", line)
			}
		}
		const config = "/var/tmp/drover-dev/client.yaml"
		s.do(t, "--config", config, "run", "sleeper", "--host", "dev", "--", "sleep", "1000")
		s.refuses(t, errs.Refused, []string{"web.service", "no systemd"}, "--config", config, "adopt", "web", "--host", "dev", "--unit", "web.service")
		s.refuses(t, errs.Refused, []string{"init"}, "--config", config, "adopt", "web", "--host", "dev", "--pid", "1")
		if err := d.Kill(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDevDoesNotServeAClusterOfSomebodyElses: who makes its directory before it does would be an administrator, and run commands as root.
func TestDevDoesNotServeAClusterOfSomebodyElses(t *testing.T) {
	h := hosttest.Host(t, hosttest.Bed(t), "taken")
	if err := h.Install(filepath.Join(built, "drover"), drover); err != nil {
		t.Fatal(err)
	}
	const dir = "/var/tmp/drover-dev"
	hosttest.Run(t, h, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", drover, "--config", dir+"/theirs.yaml",
		"cluster", "init", "dev", "--name", "dev", "--listen", "127.0.0.1:7201", "--state-dir", dir+"/coordinator", "--client-dir", dir, "--operator", "mallory")
	d, err := h.Start(t.Context(), "dev", []string{drover, "dev"})
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "dev refuses it", func() bool {
		return strings.Contains(d.Log(), "dev trusts nothing in "+dir+": "+dir+" belongs to uid 65534")
	})
	if strings.Contains(d.Log(), "DROVER_CONFIG=") {
		t.Errorf("it serves: %s", d.Log())
	}
	hosttest.Run(t, h, "rm", "-r", dir)
}
