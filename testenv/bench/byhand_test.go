package bench

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/stats"

	"drover/testenv/bench/report"
	"drover/testenv/cluster"
	"drover/testenv/host/hosttest"
)

//go:embed byhand.sh
var byHandScript string

const (
	byHandAddress = "10.77.0.51"
	masterSocket  = "/run/ssh-master"
	phaulProgram  = "/usr/local/bin/phaul"
)

// byHand moves a program without drover.
type byHand struct {
	*ground
	method   string
	pid      int // the same on every host it comes to
	on, off  *cluster.Member
	logFile  string
	hasRedis bool
}

// byHandMethods are those that work here: rounds of CRIU's own need soft-dirty.
func (g *ground) byHandMethods() []string {
	if !g.softDirty {
		return []string{report.Baseline}
	}
	return []string{report.Baseline, report.PreDumps, report.Phaul}
}

func startByHand(b *testing.B, g *ground, name string, c report.Case) *byHand {
	b.Helper()
	m := &byHand{ground: g, on: g.Workers[0], off: g.Workers[1], logFile: "/var/log/" + name + ".log", hasRedis: isRedis(c)}
	if m.hasRedis {
		hosttest.Run(b, m.on.Host, "ip", "address", "add", byHandAddress+"/24", "dev", "eth0")
		hosttest.Run(b, m.on.Host, "arping", "-q", "-U", "-c", "1", "-I", "eth0", byHandAddress) // it may have been elsewhere
	}
	m.pid = hosttest.Start(b, m.on.Host, name, commandOf(c)...).Pid
	return m
}

func (m *byHand) address() string { return byHandAddress }

func (m *byHand) log(context.Context) (string, error) {
	text, err := os.ReadFile(m.on.Path(m.logFile))
	return string(text), err
}

func (m *byHand) end(ctx context.Context) error {
	if _, err := m.on.Run(ctx, "kill", "-9", strconv.Itoa(m.pid)); err != nil {
		return err
	}
	if !m.hasRedis {
		return nil
	}
	_, err := m.on.Run(ctx, "ip", "address", "del", byHandAddress+"/24", "dev", "eth0")
	return err
}

// connect makes the SSH connection that is used, and empty folders for images: to make them is not the method's fault.
func (m *byHand) connect(ctx context.Context, target string) error {
	_, err := m.on.Run(ctx, "sh", "-ec", fmt.Sprintf(
		`ssh -q -f -N -M -S %[1]s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@%[2]s </dev/null >/dev/null 2>&1
		fresh="rm -rf /run/images; mkdir /run/images"
		eval "$fresh"; ssh -S %[1]s root@%[2]s "$fresh"`, masterSocket, target))
	return err
}

// leave ends what a move left on the hosts, and says how large the images on the source were. What the dump locked the
// connections with is still there, and would be in the way of a move back.
func (m *byHand) leave(ctx context.Context) (images int64, err error) {
	said, err := m.on.Run(ctx, "sh", "-ec", `nft list tables | while read -r _ family table; do
			case $table in CRIU-*) nft delete table "$family" "$table" ;; esac
		done
		du -s -B 1 /run/images | cut -f 1
		rm -rf /run/images`)
	if err != nil {
		return 0, err
	}
	if _, err := m.off.Run(ctx, "rm", "-rf", "/run/images"); err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(said), 10, 64)
}

func (m *byHand) command(ctx context.Context, target string) *exec.Cmd {
	address := ""
	if m.hasRedis {
		address = byHandAddress
	}
	if m.method == report.Phaul {
		return m.on.Command(ctx, phaulProgram, "-pid", strconv.Itoa(m.pid), "-target", target, "-log", m.logFile, "-address", address, "-ssh", masterSocket)
	}
	rounds := 0
	if m.method == report.PreDumps {
		rounds = 8 // as many as phaul would make
	}
	cmd := m.on.Command(ctx, "bash", "-c", byHandScript)
	cmd.Env = append(cmd.Env, "PID="+strconv.Itoa(m.pid), "TARGET="+target, "LOG="+m.logFile, "ADDRESS="+address, "ROUNDS="+strconv.Itoa(rounds))
	return cmd
}

func (m *byHand) move(ctx context.Context, _ *sights) (run report.Run, err error) {
	target, _, _ := strings.Cut(m.off.Options.Address, "/")
	if err := m.connect(ctx, target); err != nil {
		return run, fmt.Errorf("ssh to %s: %w", m.off.Name, err)
	}
	// That it is still there is the next move's to say.
	defer m.on.Run(context.WithoutCancel(ctx), "ssh", "-q", "-S", masterSocket, "-O", "exit", "root@"+target)
	before, err := sent(m.on.Host)
	if err != nil {
		return run, err
	}
	cmd := m.command(ctx, target)
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
	at, rounds, err := figures(string(out))
	if err != nil {
		return run, err
	}
	images, err := m.leave(ctx)
	if err != nil {
		return run, err
	}
	m.on, m.off = m.off, m.on
	return report.Run{
		Blackout: report.InMillis(time.Duration(at["restored"]-at["dumped"]) + frozen), // phaul restores before the dump has ended
		Total:    report.InMillis(time.Duration(at["restored"] - at["begun"])),
		Wire:     after - before, Memory: images, Rounds: rounds,
	}, nil
}

// figures reads what a method says: lines of a word and a time, and of "round" and the pages that it wrote.
func figures(text string) (at map[string]int64, rounds []report.Round, err error) {
	at = map[string]int64{}
	for line := range strings.Lines(text) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("the move by hand says %q: %w", line, err)
		}
		if name == "round" {
			rounds = append(rounds, report.Round{Pages: uint64(n)})
			continue
		}
		at[name] = n
	}
	for _, name := range []string{"begun", "dumped", "restored"} {
		if at[name] == 0 {
			return nil, nil, fmt.Errorf("the move by hand does not say %s: %q", name, text)
		}
	}
	return at, rounds, nil
}

// frozenFor is how long the final dump on the host held the tree, as CRIU counted it, until it had ended it.
func frozenFor(m *cluster.Member) (time.Duration, error) {
	dir, err := os.Open(m.Path("/run/images/final"))
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
