package bench

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/stats"

	"drover/testenv/bench/report"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
)

//go:embed baseline.sh
var baselineScript string

const (
	baselineAddress = "10.77.0.51"
	masterSocket    = "/run/ssh-master"
)

// baseline moves a program by hand.
type baseline struct {
	*ground
	pid      int // the same on every host it comes to
	on, off  *cluster.Member
	logFile  string
	hasRedis bool
}

func startBaseline(b *testing.B, g *ground, name string, c report.Case) *baseline {
	b.Helper()
	m := &baseline{ground: g, on: g.Workers[0], off: g.Workers[1], logFile: "/var/log/" + name + ".log", hasRedis: isRedis(c)}
	if m.hasRedis {
		hosttest.Run(b, m.on.Host, "ip", "address", "add", baselineAddress+"/24", "dev", "eth0")
		hosttest.Run(b, m.on.Host, "arping", "-q", "-U", "-c", "1", "-I", "eth0", baselineAddress) // it may have been elsewhere
	}
	m.pid = hosttest.Start(b, m.on.Host, name, commandOf(c)...).Pid
	return m
}

func (m *baseline) address() string { return baselineAddress }

func (m *baseline) log(context.Context) (string, error) {
	text, err := os.ReadFile(m.on.Path(m.logFile))
	return string(text), err
}

func (m *baseline) end(ctx context.Context) error {
	if _, err := m.on.Run(ctx, "kill", "-9", strconv.Itoa(m.pid)); err != nil {
		return err
	}
	if !m.hasRedis {
		return nil
	}
	_, err := m.on.Run(ctx, "ip", "address", "del", baselineAddress+"/24", "dev", "eth0")
	return err
}

// connect makes the SSH connection that the script uses: to make it is not the baseline's fault.
func (m *baseline) connect(ctx context.Context, target string) error {
	_, err := m.on.Run(ctx, "sh", "-ec", fmt.Sprintf(
		"ssh -q -f -N -M -S %s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@%s </dev/null >/dev/null 2>&1", masterSocket, target))
	return err
}

func (m *baseline) move(ctx context.Context, _ func()) (run report.Run, err error) {
	target, _, _ := strings.Cut(m.off.Options.Address, "/")
	if err := m.connect(ctx, target); err != nil {
		return run, fmt.Errorf("ssh to %s: %w", m.off.Name, err)
	}
	// That it is still there is the next move's to say.
	defer m.on.Run(context.WithoutCancel(ctx), "ssh", "-q", "-S", masterSocket, "-O", "exit", "root@"+target)
	address := ""
	if m.hasRedis {
		address = baselineAddress
	}
	before, err := sent(m.on.Host)
	if err != nil {
		return run, err
	}
	cmd := m.on.Command(ctx, "bash", "-c", baselineScript)
	cmd.Env = append(cmd.Env, "PID="+strconv.Itoa(m.pid), "TARGET="+target, "LOG="+m.logFile, "ADDRESS="+address)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return run, fmt.Errorf("move by hand from %s to %s: %w: %s", m.on.Name, m.off.Name, err, strings.TrimSpace(complaint.String()))
	}
	after, err := sent(m.on.Host)
	if err != nil {
		return run, err
	}
	frozen, err := frozenFor(m.on)
	if err != nil {
		return run, err
	}
	said, err := figures(string(out))
	if err != nil {
		return run, err
	}
	if _, err := m.on.Run(ctx, "rm", "-rf", "/run/images"); err != nil {
		return run, err
	}
	m.on, m.off = m.off, m.on
	return report.Run{
		Blackout: report.InMillis(time.Duration(said["restored"]-said["dumped"]) + frozen),
		Total:    report.InMillis(time.Duration(said["restored"] - said["begun"])),
		Wire:     after - before, Memory: said["images"],
	}, nil
}

// figures reads lines of a word and a number.
func figures(text string) (map[string]int64, error) {
	f := map[string]int64{}
	for line := range strings.Lines(text) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the script says %q: %w", line, err)
		}
		f[name] = n
	}
	for _, name := range []string{"begun", "dumped", "restored", "images"} {
		if f[name] == 0 {
			return nil, fmt.Errorf("the script does not say %s: %q", name, text)
		}
	}
	return f, nil
}

// frozenFor is how long the last dump on the host held the tree, as CRIU counted it, until it had ended it.
func frozenFor(m *cluster.Member) (time.Duration, error) {
	dir, err := os.Open(m.Path("/run/images"))
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	s, err := stats.CriuGetDumpStats(dir)
	if err != nil {
		return 0, fmt.Errorf("read CRIU's figures of the dump: %w", err)
	}
	return time.Duration(s.GetFreezingTime()+s.GetFrozenTime()) * time.Microsecond, nil
}
