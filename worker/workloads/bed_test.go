package workloads

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"drover/internal/workload"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

// drover is where the test binary stands on a test host.
const droverInside = "/usr/local/sbin/drover"

// site is a test host with drover on it.
type site struct {
	t *testing.T
	*host.Host
}

// newSites makes hosts of those names at 10.77.0.1, .2, …, with drover on them, which are gone with the test.
func newSites(t *testing.T, names ...string) (*host.Bed, []site) {
	t.Helper()
	bed := hosttest.Bed(t, names...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var all []site
	for _, h := range bed.Hosts() {
		if err := h.Install(self, droverInside); err != nil {
			t.Fatal(err)
		}
		all = append(all, site{t, h})
	}
	// What drover makes once on a host is there before anybody looks.
	for _, s := range all {
		s.do(step{Do: "start", Spec: sleeper("first"), Epoch: 1})
		s.do(step{Do: "rm", Name: "first", Force: true})
		s.sh("criu check")
	}
	return bed, all
}

// sleeper is a workload that does nothing.
func sleeper(name string) workload.Spec {
	return workload.Spec{Name: name, Kind: workload.Run, Command: []string{"sleep", "1000"}}
}

// nothingLeft fails the test unless the bed looks as it did.
func nothingLeft(t *testing.T, bed *host.Bed, earlier host.Snapshot) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := bed.NothingLeft(ctx, earlier, func(line string) bool {
		return strings.Contains(line, "/var/tmp/moved") || strings.Contains(line, "/workloads/") // records of what is gone keep its epoch
	})
	if err != nil {
		t.Error(err)
	}
}

func snapshot(t *testing.T, bed *host.Bed) host.Snapshot {
	t.Helper()
	s, err := bed.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// try does one step in a worker of its own.
func (s site) try(what step) outcome {
	s.t.Helper()
	b, err := json.Marshal(what)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 90*time.Second)
	defer cancel()
	cmd := s.Command(ctx, droverInside, "hand", string(b))
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	s.t.Logf("%s: %s: %s%s", s.Name, what.Do, out.String(), complaints.String())
	if err != nil {
		s.t.Fatalf("%s on %s: %v", what.Do, s.Name, err)
	}
	var o outcome
	if err := json.Unmarshal([]byte(out.String()), &o); err != nil {
		s.t.Fatal(err)
	}
	return o
}

// do is try for a step that must succeed.
func (s site) do(what step) outcome {
	s.t.Helper()
	o := s.try(what)
	if o.Error != "" {
		s.t.Fatalf("%s on %s: %s (%s)", what.Do, s.Name, o.Error, o.Next)
	}
	return o
}

// sh runs a shell command on the host and returns what it says.
func (s site) sh(command string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	out, err := s.Run(ctx, "sh", "-c", command)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// until waits for a shell command on the host to say yes.
func (s site) until(command string) {
	s.t.Helper()
	s.sh("for i in $(seq 500); do if " + command + "; then exit 0; fi; sleep 0.02; done; echo never: '" + strings.ReplaceAll(command, "'", "") + "' >&2; exit 1")
}

// copyMoved takes what a source left for its target there.
func copyMoved(t *testing.T, from, to site) {
	t.Helper()
	if err := os.RemoveAll(to.Path("/var/tmp/moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to.Path("/var/tmp/moved"), os.DirFS(from.Path("/var/tmp/moved"))); err != nil {
		t.Fatal(err)
	}
}

// move moves a workload as sessions do, every step in a worker of its own.
func move(t *testing.T, spec workload.Spec, from, to site, what step) {
	t.Helper()
	what.Do, what.Name = "hold", spec.Name
	from.do(what)
	copyMoved(t, from, to)
	to.do(step{Do: "receive", Spec: spec, Epoch: what.Epoch, Migration: what.Migration})
	to.do(step{Do: "accept", Epoch: what.Epoch + 1, Migration: what.Migration})
	from.do(step{Do: "commit", Migration: what.Migration, Final: what.Final})
}
