package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"drover/engine"
	"drover/engine/criu"
	"drover/internal/workload"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
	workerapi "drover/worker/api"
	"drover/worker/workloads"
)

// droverInside is where the test binary stands on a test host.
const droverInside = "/usr/local/sbin/drover"

// byHand is a worker that does one thing and goes away: "start SPEC", "inspect NAME", "judge" with an inventory on its
// standard input. It answers in JSON.
func byHand(args []string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := doByHand(ctx, args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		return 1
	}
	return 0
}

func doByHand(ctx context.Context, args []string) (any, error) {
	h, err := workloads.Open(ctx, workloads.Config{StateDir: "/var/lib/drover", RunDir: "/run/drover", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	d := Doctor{Workloads: h.Workloads, Facts: func(ctx context.Context) (f workerapi.HostFacts, err error) {
		f.Name, _ = os.Hostname()
		f.MemoryFree, f.DiskFree = 1<<30, 1<<30
		f.Engine, err = engine.Engine(criu.New(criu.Config{})).Probe(ctx)
		return f, err
	}}
	switch args[0] {
	case "start":
		var spec workload.Spec
		if err := json.Unmarshal([]byte(args[1]), &spec); err != nil {
			return nil, err
		}
		return h.Start(ctx, spec, 1)
	case "rm":
		return nil, h.Remove(ctx, args[1], true)
	case "inspect":
		return d.Inspect(ctx, args[1])
	}
	b, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, err
	}
	var inv workerapi.Inventory
	if err := json.Unmarshal(b, &inv); err != nil {
		return nil, err
	}
	return d.Judge(ctx, inv)
}

// hand lets the worker of a test host do one thing.
func hand[T any](t *testing.T, h *host.Host, stdin []byte, args ...string) (answer T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := h.Command(ctx, append([]string{droverInside, "hand"}, args...)...)
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s on %s: %v: %s", args[0], h.Name, err, complaints.String())
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		t.Fatalf("%s on %s: %v in %s", args[0], h.Name, err, out.String())
	}
	return answer
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refusals are the NO-GO findings, one a line.
func refusals(lists ...[]workerapi.Finding) string {
	var lines []string
	for _, list := range lists {
		for _, f := range list {
			if f.Verdict == workerapi.NoGo {
				lines = append(lines, fmt.Sprintf("%s on %s: %s (%s)", f.Check, f.Host, f.Detail, f.Mend))
			}
		}
	}
	return strings.Join(lines, "\n")
}

func TestRedisWithAnAddressMayMoveUntilTheTargetDiffers(t *testing.T) {
	bed := hosttest.Bed(t, "alpha", "beta", "client")
	alpha, beta, client := bed.Hosts()[0], bed.Hosts()[1], bed.Hosts()[2]
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host.Host{alpha, beta} {
		if err := h.Install(self, droverInside); err != nil {
			t.Fatal(err)
		}
	}
	spec := workload.Spec{
		Name: "redis", Kind: workload.Run, Command: []string{"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""},
		Address: "10.77.0.50/24",
	}
	hand[workload.Status](t, alpha, nil, "start", string(toJSON(t, spec)))
	defer hand[any](t, alpha, nil, "rm", "redis")
	hosttest.Eventually(t, "redis answers", func() bool {
		out, err := client.Run(t.Context(), "redis-cli", "-h", "10.77.0.50", "ping")
		return err == nil && strings.TrimSpace(out) == "PONG"
	})
	hosttest.Start(t, client, "subscriber", "redis-cli", "-h", "10.77.0.50", "subscribe", "news")
	var inv workerapi.Inventory
	hosttest.Eventually(t, "the doctor sees the connection", func() bool {
		inv = hand[workerapi.Inventory](t, alpha, nil, "inspect", "redis")
		return inv.Options.TCPEstablished
	})
	if !inv.OwnPidNS || !inv.OwnNetNS || !inv.OwnIPCNS || !inv.OwnMountNS || inv.MAC == "" || inv.Processes[0].Pid != 1 {
		t.Errorf("namespaces and address: %+v", inv)
	}
	if len(inv.Listeners) != 0 {
		t.Errorf("it listens in a network of its own, but these are the host's to have: %+v", inv.Listeners)
	}
	verdict := func() string {
		return refusals(inv.Findings, hand[[]workerapi.Finding](t, beta, toJSON(t, inv), "judge"))
	}
	if no := verdict(); no != "" {
		t.Fatalf("beta is like alpha, but:\n%s", no)
	}
	hosttest.Run(t, beta, "sh", "-c", "truncate -s +1 /usr/bin/redis-check-rdb")
	if no := verdict(); !strings.Contains(no, "/usr/bin/redis-check-rdb has") || !strings.Contains(no, "package redis-tools") {
		t.Errorf("the program differs on beta, but the doctor says %q", no)
	}
	hosttest.Run(t, client, "ip", "address", "add", "10.77.0.50/24", "dev", "eth0")
	if no := verdict(); !strings.Contains(no, "10.77.0.50 is answered for by") {
		t.Errorf("two have the address, but the doctor says %q", no)
	}
}
