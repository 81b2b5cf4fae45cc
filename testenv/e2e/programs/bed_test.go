package programs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/testenv/cluster"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
	"drover/testenv/rootfs"
)

// drover is where the program lies on every host.
const drover = "/usr/local/bin/drover"

// built is the folder of the programs that TestMain builds.
var built string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "drover-programs-")
	if err == nil {
		defer os.RemoveAll(dir)
		built = dir
		err = build("./cmd/drover", "./testenv/victims/counter", "./testenv/victims/shm", "./testenv/victims/needy", "./testenv/e2e/programs/httpd", "./testenv/e2e/programs/noring")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(packages ...string) error {
	root, err := rootfs.ModuleRoot()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-o", built}, packages...)...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %v: %w\n%s", packages, err, said)
	}
	return nil
}

// stage is a cluster of one coordinator and the workers alpha and beta, and a client on a host of its own.
type stage struct {
	*cluster.Cluster
	alpha, beta *cluster.Member
	client      *host.Host
	empty       host.Snapshot // as it was with the cluster up and no workload
}

// newStage makes a stage that goes with the test. Programs are put on both workers, in /usr/local/bin.
func newStage(t *testing.T, programs ...string) *stage {
	t.Helper()
	return newStageUnder(t, nil, programs...)
}

// newStageUnder is newStage with a program that starts the workers (cluster.Options.Under).
func newStageUnder(t *testing.T, under []string, programs ...string) *stage {
	t.Helper()
	bed := hosttest.Bed(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := cluster.New(ctx, bed, cluster.Options{Drover: filepath.Join(built, "drover"), Coordinators: []string{"ceres"}, Workers: []string{"alpha", "beta"}, Under: under})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{Cluster: c, alpha: c.Workers[0], beta: c.Workers[1], client: hosttest.Host(t, bed, "client")}
	for _, p := range programs {
		for _, m := range c.Workers {
			if err := m.Install(filepath.Join(built, p), "/usr/local/bin/"+p); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.tell(t)
		}
	})
	return s
}

// tell says what the workers have logged of late.
func (s *stage) tell(t *testing.T) {
	for _, m := range append(s.Workers, s.Coordinators...) {
		log := m.Daemon.Log()
		t.Logf("--- the log of %s ends so:\n%s", m.Name, log[max(0, len(log)-6000):])
	}
}

// answer is how a verb ended.
type answer struct {
	out, complaint string
	code           int
}

// ask runs a verb on the coordinator's host and returns how it ended, whatever that is.
func (s *stage) ask(t *testing.T, args ...string) answer {
	t.Helper()
	return s.askOn(t, s.Coordinators[0], args...)
}

func (s *stage) askOn(t *testing.T, m *cluster.Member, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), hosttest.Patience) // a test's cleanup asks, too
	defer cancel()
	cmd := m.Command(ctx, append([]string{drover}, args...)...)
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("drover %s: %v\n%s", strings.Join(args, " "), err, complaint.String())
	}
	return answer{out.String(), complaint.String(), cmd.ProcessState.ExitCode()}
}

// do runs a verb that must succeed, and returns what it printed.
func (s *stage) do(t *testing.T, args ...string) string {
	t.Helper()
	a := s.ask(t, args...)
	if a.code != 0 {
		t.Fatalf("drover %s: exit code %d: %s", strings.Join(args, " "), a.code, a.complaint)
	}
	return a.out
}

// refuses runs a verb that must fail so: with the kind's exit code, one line on standard error that holds the words, a next step
// below it, and nothing else.
func (s *stage) refuses(t *testing.T, kind errs.Kind, words []string, args ...string) {
	t.Helper()
	a := s.ask(t, args...)
	wrong := func(format string, with ...any) {
		t.Helper()
		t.Errorf("drover %s: %s\nexit code %d\n%s%s", strings.Join(args, " "), fmt.Sprintf(format, with...), a.code, a.out, a.complaint)
	}
	if a.code != kind.ExitCode() {
		wrong("want exit code %d (%s)", kind.ExitCode(), kind)
	}
	lines := strings.Split(strings.TrimRight(a.complaint, "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "drover: ") || !strings.HasPrefix(lines[1], "  → ") {
		wrong("want one line that begins with drover: and one with the next step")
	}
	for _, w := range words {
		if !strings.Contains(lines[0], w) {
			wrong("the error does not name %q", w)
		}
	}
}

// workload is a workload as the cluster has it.
func (s *stage) workload(t *testing.T, name string) api.Workload {
	t.Helper()
	var w api.Workload
	if err := json.Unmarshal([]byte(s.do(t, "show", "workload/"+name, "--json")), &w); err != nil {
		t.Fatal(err)
	}
	return w
}

// awaitState returns the workload once it is in that state.
func (s *stage) awaitState(t *testing.T, name string, want workload.State) (w api.Workload) {
	t.Helper()
	hosttest.Eventually(t, fmt.Sprintf("%s is %s", name, want), func() bool {
		w = s.workload(t, name)
		return w.Status.State == want
	})
	return w
}

// move migrates a workload and returns the migration's record.
func (s *stage) move(t *testing.T, name, to string, args ...string) api.Migration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Patience)
	defer cancel()
	m, err := s.Migrate(ctx, nil, name, to, append([]string{"--probation", "500ms"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	if m.Phase != migration.Done {
		t.Fatalf("the migration of %s to %s ended as %s: %s", name, to, m.Phase, m.Reason)
	}
	return m
}

// dial connects from the client's host, as soon as somebody listens.
func (s *stage) dial(t *testing.T, address string) net.Conn {
	t.Helper()
	var conn net.Conn
	hosttest.Eventually(t, "somebody listens at "+address, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err := s.client.Dial(ctx, "tcp", address)
		conn = c
		return err == nil
	})
	if err := conn.SetDeadline(time.Now().Add(2 * hosttest.Patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// remember takes the snapshot that nothingLeft compares with.
func (s *stage) remember(t *testing.T) {
	t.Helper()
	hosttest.Eventually(t, "no worker asks CRIU what it can", func() bool {
		var err error
		if s.empty, err = s.Bed.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		for line := range s.empty {
			if strings.Contains(line, "criu swrk") || strings.Contains(line, "(ended, not reaped)") {
				return false
			}
		}
		return true
	})
}

// nothingLeft returns when the hosts look as they did at remember, daemons' records and descriptors aside.
func (s *stage) nothingLeft(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Patience)
	defer cancel()
	if err := s.Bed.NothingLeft(ctx, s.empty, kept); err != nil {
		t.Error(err)
	}
}

// kept says of a line of a snapshot's difference that it is no trace of a workload: a worker's pid, how many descriptors it has,
// what is remembered of workloads and migrations that are over, and the empty groups that a worker keeps for the next tree.
func kept(line string) bool {
	for _, part := range []string{"/var/lib/drover", " descriptors", "/drover worker", "cgroup /drover/\n", "cgroup /drover/_keepers/\n"} {
		if strings.Contains(line+"\n", part) {
			return true
		}
	}
	return false
}
