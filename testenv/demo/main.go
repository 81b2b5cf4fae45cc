// Command demo shows drover at work on real hosts of one machine: three coordinators, three workers, a redis of 200 MB with an
// address of its own, and a client on a host of its own that counts over one connection without pause. The redis moves from
// host to host, a leader is killed in the middle of a move, a host is drained, a restore fails and is rolled back; at the end
// the demo says what the client saw. It needs root and takes about two minutes; it removes everything it made.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/testenv/cluster"
	"drover/testenv/host"
	"drover/testenv/redisload"
	"drover/testenv/rootfs"
)

const (
	workload = "redis"
	address  = "10.77.0.50"
	data     = 200 << 20
	deadline = 10 * time.Minute
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	drover, cleanup, err := build(ctx)
	if err != nil {
		return err
	}
	defer cleanup()
	title("Seven hosts on this machine: three coordinators, three workers, one client")
	bed, err := host.NewBed(ctx, "demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	c, err := cluster.New(ctx, bed, cluster.Options{Drover: drover, Coordinators: []string{"ceres", "pallas", "vesta"}, Workers: []string{"alpha", "beta", "gamma"}})
	if err != nil {
		return err
	}
	client, err := bed.Host(ctx, "client", host.Options{Address: "10.77.0.99/24"})
	if err != nil {
		return err
	}
	d := &demo{cluster: c, client: client}
	if err := d.print(ctx, "status"); err != nil {
		return err
	}
	for _, part := range []func(context.Context) error{d.start, d.move, d.loseLeader, d.drain, d.rollBack} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return d.finish()
}

// build makes the drover program as it is in this tree.
func build(ctx context.Context) (program string, cleanup func(), err error) {
	root, err := rootfs.ModuleRoot()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "drover-demo-")
	if err != nil {
		return "", nil, err
	}
	program = filepath.Join(dir, "drover")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "./cmd/drover")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", nil, fmt.Errorf("build drover: %w\n%s", err, out)
	}
	return program, func() { os.RemoveAll(dir) }, nil
}

// demo is the cluster, the client and what it counts.
type demo struct {
	cluster *cluster.Cluster
	client  *host.Host
	counter *redisload.Counter
}

func title(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }

// print runs a verb and shows it with what it prints.
func (d *demo) print(ctx context.Context, args ...string) error {
	fmt.Print("$ drover")
	for _, a := range args {
		fmt.Print(" ", a)
	}
	fmt.Println()
	out, err := d.cluster.Drover(ctx, args...)
	fmt.Print(out)
	return err
}

func (d *demo) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := d.client.Dial(ctx, "tcp", address+":6379")
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		time.Sleep(20 * time.Millisecond) // redis is still starting
	}
}

// start starts the redis on alpha, fills it and lets the client count.
func (d *demo) start(ctx context.Context) error {
	title("A redis on alpha, with an address of its own and 200 MB")
	err := d.print(ctx, "run", workload, "--host", "alpha", "--address", address+"/24", "--",
		"redis-server", "--save", "", "--appendonly", "no", "--bind", "0.0.0.0", "--protected-mode", "no")
	if err != nil {
		return err
	}
	conn, err := d.dial(ctx)
	if err != nil {
		return fmt.Errorf("reach redis: %w", err)
	}
	defer conn.Close()
	if _, err := redisload.Fill(ctx, conn, data); err != nil {
		return fmt.Errorf("fill redis: %w", err)
	}
	counting, err := d.dial(ctx)
	if err != nil {
		return err
	}
	d.counter = redisload.Count(counting, "counter")
	return d.print(ctx, "workloads")
}

// move moves it from alpha to beta and shows the rounds.
func (d *demo) move(ctx context.Context) error {
	title("alpha → beta, live")
	if err := d.print(ctx, "doctor", workload, "--to", "beta"); err != nil {
		return err
	}
	return d.migrate(ctx, nil, "beta")
}

// migrate moves the workload and says what it took; on sees every change.
func (d *demo) migrate(ctx context.Context, on func(api.Migration), to string, args ...string) error {
	d.counter.ResetGap()
	fmt.Printf("$ drover migrate %s --to %s\n", workload, to)
	m, err := d.cluster.Migrate(ctx, on, workload, to, args...)
	if err != nil {
		return err
	}
	fmt.Printf("%-6s %10s %10s %12s %10s\n", "round", "pages", "sent", "wire bytes", "took")
	for _, r := range m.Progress.Rounds {
		n := fmt.Sprint(r.N)
		if r.Final {
			n = "final"
		}
		fmt.Printf("%-6s %10d %10d %12d %10s\n", n, r.Track.Scanned, r.PagesSent, r.WireBytes, r.Took.Round(time.Millisecond))
	}
	seen, err := d.counter.Next(ctx)
	fmt.Printf("%s is on %s. Blackout %s; the client's longest gap %s.\n", workload, to, m.Blackout.Round(time.Millisecond), seen.LongestGap.Round(time.Millisecond))
	return err
}

// loseLeader kills the leader in the middle of a move.
func (d *demo) loseLeader(ctx context.Context) error {
	leader, err := d.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	title("beta → gamma, and %s, the leader, is killed in the middle", leader.Name)
	killed := false
	err = d.migrate(ctx, func(m api.Migration) {
		if killed || m.Phase != migration.Copying {
			return
		}
		killed = true
		fmt.Printf("kill -9 the coordinator on %s, in phase %s\n", leader.Name, m.Phase)
		if err := leader.Daemon.Kill(ctx); err != nil {
			fmt.Println(err)
		}
	}, "gamma")
	if err != nil {
		return err
	}
	if !killed {
		return errors.New("the move was over before the leader could be killed")
	}
	if err := d.print(ctx, "status"); err != nil {
		return err
	}
	return leader.Restart(ctx)
}

// drain empties gamma.
func (d *demo) drain(ctx context.Context) error {
	title("gamma is drained")
	d.counter.ResetGap()
	for _, args := range [][]string{{"drain", "gamma", "--dry-run"}, {"drain", "gamma"}, {"workloads"}, {"uncordon", "gamma"}} {
		if err := d.print(ctx, args...); err != nil {
			return err
		}
	}
	seen, err := d.counter.Next(ctx)
	fmt.Printf("The client's longest gap: %s\n", seen.LongestGap.Round(time.Millisecond))
	return err
}

// rollBack makes a restore fail: a file that redis has mapped goes away on the target after the doctor looked.
func (d *demo) rollBack(ctx context.Context) error {
	w, err := d.cluster.Workload(ctx, workload)
	if err != nil {
		return err
	}
	target := d.cluster.Workers[0]
	if w.Owner == target.Name {
		target = d.cluster.Workers[1]
	}
	title("%s → %s, where a file goes missing after the doctor looked", w.Owner, target.Name)
	const file = "/usr/bin/redis-check-rdb" // the program's own file: redis-server is a link to it
	hidden := false
	hide := func(m api.Migration) {
		if hidden || m.Phase != migration.Copying {
			return
		}
		hidden = true
		fmt.Printf("%s is moved away on %s, in phase %s\n", file, target.Name, m.Phase)
		if _, err := target.Run(ctx, "mv", file, file+".away"); err != nil {
			fmt.Println(err)
		}
	}
	err = d.migrate(ctx, hide, target.Name)
	if err == nil || !hidden {
		return errors.New("the restore was meant to fail, and did not")
	}
	if _, err := target.Run(ctx, "mv", file+".away", file); err != nil {
		return err
	}
	seen, err := d.counter.Next(ctx)
	if err != nil {
		return fmt.Errorf("the connection did not survive the rollback: %w", err)
	}
	fmt.Printf("Rolled back: %s runs on %s, the client's connection lives, its longest gap was %s.\n", workload, w.Owner, seen.LongestGap.Round(time.Millisecond))
	return d.print(ctx, "migrations", workload)
}

// finish says what the client saw.
func (d *demo) finish() error {
	title("What the client saw, over one connection, from beginning to end")
	fmt.Println("(Its gaps are up to 0.2 s longer than the blackouts: that often TCP sends again what it sent in one.)")
	seen, err := d.counter.Stop()
	fmt.Printf("requests %d, lost %d, repeated %d\n", seen.Requests, seen.Lost, seen.Repeated)
	if err != nil {
		return fmt.Errorf("the connection broke: %w", err)
	}
	if seen.Lost > 0 || seen.Repeated > 0 {
		return errors.New("requests were lost or repeated")
	}
	return nil
}
