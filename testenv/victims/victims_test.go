// Package victims holds the programs that tests move; see vital for what they have in common. Its tests run each undisturbed: a
// victim that finds fault with a quiet machine would find fault with every migration.
package victims

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/testenv/host/hosttest"
	"drover/testenv/witness"
)

// last is the last line that a victim said, as JSON.
func last(t *testing.T, said string) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(said), "\n")
	var report map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &report); err != nil {
		t.Fatalf("the last line of %q: %v", said, err)
	}
	return report
}

func TestAHeartBeatsAsAWitnessWantsIt(t *testing.T) {
	file, host := filepath.Join(t.TempDir(), "beats"), filepath.Join(t.TempDir(), "host")
	if err := os.WriteFile(host, []byte("alpha\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), hosttest.Build(t, "./testenv/victims/heart"), "-file", file, "-host", host, "-for", "300ms")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	beats, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer beats.Close()
	w := &witness.Witness{InOrder: true}
	if err := w.Read(beats); err != nil || w.Err() != nil || w.Last().Count < 3 || w.Last().Host != "alpha" {
		t.Errorf("the last beat is %s: %v, %v", w.Last(), err, w.Err())
	}
}

func TestVictimsFindNoFaultWithAQuietMachine(t *testing.T) {
	for _, c := range []struct {
		victim string
		args   []string
		want   map[string]float64
		some   string // is more than zero
	}{
		{"counter", []string{"-processes", "5", "-threads", "3", "-fan-out", "2"}, map[string]float64{"processes": 5, "threads": 15, "faults": 0}, "beat"},
		{"dirtier", []string{"-memory", "8M", "-working-set", "1M", "-rate", "2000", "-verify", "100ms"}, map[string]float64{"pages": 2048, "faults": 0}, "written"},
		{"shm", []string{"-kind", "memfd", "-size", "64K"}, map[string]float64{"pages": 16, "faults": 0}, "rounds"},
		{"shm", []string{"-kind", "anonymous", "-size", "64K"}, map[string]float64{"pages": 16, "faults": 0}, "rounds"},
		{"shm", []string{"-kind", "sysv", "-size", "64K"}, map[string]float64{"pages": 16, "faults": 0}, "rounds"},
		{"shm", []string{"-kind", filepath.Join(t.TempDir(), "shared"), "-size", "64K"}, map[string]float64{"pages": 16, "faults": 0}, "rounds"},
	} {
		t.Run(c.victim, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), hosttest.Build(t, "./testenv/victims/"+c.victim), append(c.args, "-for", "500ms")...)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			report := last(t, string(out))
			for key, want := range c.want {
				if report[key] != want {
					t.Errorf("%s is %v, want %v", key, report[key], want)
				}
			}
			if n, _ := report[c.some].(float64); n <= 0 {
				t.Errorf("no %s in %s", c.some, out)
			}
		})
	}
}

func TestCounterKeepsItsStatusFile(t *testing.T) {
	status := filepath.Join(t.TempDir(), "status")
	cmd := exec.CommandContext(t.Context(), hosttest.Build(t, "./testenv/victims/counter"), "-status", status, "-for", "200ms")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(status)
	if err != nil {
		t.Fatal(err)
	}
	if report := last(t, string(text)); report["processes"] != 3.0 || report["faults"] != 0.0 {
		t.Errorf("the status is %s", text)
	}
}

func TestNetworkVictimsLoseNothingOnAQuietHost(t *testing.T) {
	alpha := hosttest.Bed(t, "alpha").Hosts()[0]
	hosttest.Install(t, "./testenv/victims/echo", "/usr/local/bin/echo-victim", alpha)
	hosttest.Install(t, "./testenv/victims/redisload", "/usr/local/bin/redisload", alpha)
	hosttest.Start(t, alpha, "echo", "echo-victim", "serve", "-listen", "127.0.0.1:7000")
	hosttest.Start(t, alpha, "redis", "redis-server", "--port", "6379", "--save", "", "--enable-debug-command", "no")
	for _, port := range []string{"7000", "6379"} {
		hosttest.Eventually(t, "something listens at port "+port, func() bool {
			return alpha.Command(t.Context(), "nc", "-z", "127.0.0.1", port).Run() == nil
		})
	}
	for _, args := range [][]string{
		{"echo-victim", "call", "-to", "127.0.0.1:7000", "-for", "300ms"},
		{"redisload", "count", "-for", "300ms"},
		{"redisload", "fill", "-size", "4M"},
		{"redisload", "write", "-size", "4M", "-rate", "2000", "-for", "300ms"},
	} {
		report := last(t, hosttest.Run(t, alpha, args...))
		if report["lost"] != 0.0 || report["repeated"] != 0.0 {
			t.Errorf("%v saw %v", args, report)
		}
		if n, _ := report["requests"].(float64); n < 3 { // how many is the machine's business
			t.Errorf("%v made %v requests", args, report["requests"])
		}
		if slices.Contains(args, "fill") && report["requests"] != 1024.0 {
			t.Errorf("fill wrote %v values, want 1024", report["requests"])
		}
	}
	if size := hosttest.Run(t, alpha, "redis-cli", "strlen", "redisload:7"); size != "4096" {
		t.Errorf("a value is %s bytes", size)
	}
}
