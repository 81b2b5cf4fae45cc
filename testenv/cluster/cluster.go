// Package cluster makes a drover cluster on the hosts of a test bed the way its users make one: with the drover program, its
// own verbs and nothing else. The demo, the tests on real hosts and the benchmarks stand on it.
//
// Start with New; a Member is one daemon on one host.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/testenv/host"
)

const (
	program         = "/usr/local/bin/drover"
	coordinatorPort = "7201"
	workerPort      = "7202"
	// readyWithin bounds how long a daemon may take until the cluster knows it.
	readyWithin = 2 * time.Minute
)

// Options say what a cluster consists of.
type Options struct {
	Drover       string   // path of the drover program on this machine
	Coordinators []string // names of hosts, which New makes; the operator's verbs run on the first
	Workers      []string // likewise; other than the coordinators'
	Args         []string // added to every worker's command line
	Under        []string // put before every worker's command line, as setpriv and its options; see Member.Under
}

// Cluster is a running cluster. Its bed belongs to the caller, who ends everything by closing it.
type Cluster struct {
	Bed          *host.Bed
	Coordinators []*Member
	Workers      []*Member
	options      Options
}

// Member is one daemon of the cluster.
type Member struct {
	*host.Host
	Daemon *host.Daemon
	Under  []string // put before its command line from the next Restart on: a program that becomes the daemon
	argv   []string
}

// New makes the hosts and starts the cluster on them; it returns when every worker is up in the eyes of the coordinators.
func New(ctx context.Context, bed *host.Bed, o Options) (*Cluster, error) {
	c := &Cluster{Bed: bed, options: o}
	for i, name := range append(append([]string{}, o.Coordinators...), o.Workers...) {
		h, err := bed.Host(ctx, name, host.Options{Address: fmt.Sprintf("10.77.0.%d/24", 11+i)})
		if err != nil {
			return nil, fmt.Errorf("make host %s: %w", name, err)
		}
		if err := h.Install(o.Drover, program); err != nil {
			return nil, err
		}
		m := &Member{Host: h}
		if i < len(o.Coordinators) {
			m.argv = []string{program, "coordinator"}
			c.Coordinators = append(c.Coordinators, m)
		} else {
			m.argv = append([]string{program, "worker"}, o.Args...)
			m.Under = o.Under
			c.Workers = append(c.Workers, m)
		}
	}
	if err := c.found(ctx); err != nil {
		return nil, err
	}
	for _, m := range c.Coordinators[1:] {
		if err := c.join(ctx, m, "coordinator", coordinatorPort); err != nil {
			return nil, err
		}
	}
	for _, m := range c.Workers {
		if err := c.join(ctx, m, "worker", workerPort); err != nil {
			return nil, err
		}
	}
	return c, c.await(ctx, "all hosts up", func() (bool, error) {
		var hosts []api.Host
		if err := c.JSON(ctx, &hosts, "hosts"); err != nil {
			return false, err
		}
		up := 0
		for _, h := range hosts {
			if h.State == "up" && !h.LastSeen.IsZero() { // a host is up until it has been silent for a while, also before its first word
				up++
			}
		}
		return up == len(c.Workers), nil
	})
}

// found makes the cluster of one coordinator.
func (c *Cluster) found(ctx context.Context) error {
	first := c.Coordinators[0]
	if _, err := first.Run(ctx, program, "cluster", "init", "demo", "--operator", "admin", "--name", first.Name, "--advertise", first.at(coordinatorPort)); err != nil {
		return fmt.Errorf("cluster init: %w", err)
	}
	if err := first.Restart(ctx); err != nil {
		return err
	}
	return c.await(ctx, "a leader", func() (bool, error) { _, err := c.Leader(ctx); return err == nil, err })
}

// join makes a host a member and starts its daemon. Where no coordinator leads it asks again, as it is told to: on a machine that
// is too slow for its elections that may be so at any time.
func (c *Cluster) join(ctx context.Context, m *Member, role, port string) error {
	err := c.await(ctx, m.Name+" to join", func() (bool, error) {
		err := c.joinOnce(ctx, m, role, port)
		return !isUnavailable(err), err
	})
	if err != nil {
		return err
	}
	return m.Restart(ctx)
}

// joinOnce makes a host a member by a token.
func (c *Cluster) joinOnce(ctx context.Context, m *Member, role, port string) error {
	var t api.Token
	if err := c.JSON(ctx, &t, "token", "new", "--role", role); err != nil {
		return fmt.Errorf("token for %s: %w", m.Name, err)
	}
	cmd := m.Command(ctx, program, "join", "--token", "-", "--role", role, "--name", m.Name, "--advertise", m.at(port))
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(t.Token), &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("join %s: %w: %s", m.Name, err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// isUnavailable says whether a verb of drover's has ended because nobody could be asked.
func isUnavailable(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == errs.Unavailable.ExitCode()
}

// Drover runs one of the operator's verbs on the first coordinator's host and returns what it printed.
func (c *Cluster) Drover(ctx context.Context, args ...string) (string, error) {
	cmd, said := c.command(ctx, args...)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("drover %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return string(out), err
}

// command is one of the operator's verbs, not started, and where its standard error goes.
func (c *Cluster) command(ctx context.Context, args ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := c.Coordinators[0].Command(ctx, append([]string{program}, args...)...)
	said := new(bytes.Buffer)
	cmd.Stderr = said
	cmd.Env = append(cmd.Env, "HOME=/root", "DROVER_COORDINATORS="+c.addresses())
	return cmd, said
}

// JSON runs a verb with --json and decodes what it printed.
func (c *Cluster) JSON(ctx context.Context, v any, args ...string) error {
	out, err := c.Drover(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("drover %s printed %q: %w", strings.Join(args, " "), out, err)
	}
	return nil
}

// Leader is the coordinator that leads now.
func (c *Cluster) Leader(ctx context.Context) (*Member, error) {
	var s api.ClusterStatus
	if err := c.JSON(ctx, &s, "status"); err != nil {
		return nil, err
	}
	for _, m := range c.Coordinators {
		if m.Name == s.Leader {
			return m, nil
		}
	}
	return nil, fmt.Errorf("no leader: %+v", s)
}

// Workload is a workload as the cluster has it.
func (c *Cluster) Workload(ctx context.Context, name string) (api.Workload, error) {
	var w []api.Workload
	if err := c.JSON(ctx, &w, "workloads"); err != nil {
		return api.Workload{}, err
	}
	for _, w := range w {
		if w.Name == name {
			return w, nil
		}
	}
	return api.Workload{}, fmt.Errorf("no workload %s", name)
}

// Restart starts a member's daemon, after killing the one it has, if any.
func (m *Member) Restart(ctx context.Context) error {
	if m.Daemon != nil {
		if err := m.Daemon.Kill(ctx); err != nil {
			return err
		}
	}
	d, err := m.Start(ctx, "drover", slices.Concat(m.Under, m.argv))
	if err != nil {
		return fmt.Errorf("start drover on %s: %w", m.Name, err)
	}
	m.Daemon = d
	return nil
}

func (m *Member) at(port string) string {
	ip, _, _ := strings.Cut(m.Options.Address, "/")
	return ip + ":" + port
}

func (c *Cluster) addresses() string {
	var a []string
	for _, m := range c.Coordinators {
		a = append(a, m.at(coordinatorPort))
	}
	return strings.Join(a, ",")
}

// await returns f's error when f says true: that there is nothing to wait for. What it was waiting for and f's last error are in
// the error if it never does.
func (c *Cluster) await(ctx context.Context, what string, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := f()
		if ok {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (last: %v)\n%s", what, ctx.Err(), err, c.logs()) //nolint:errorlint // the last error may be nil
		}
	}
}

// logs is the end of every daemon's log.
func (c *Cluster) logs() string {
	var b strings.Builder
	for _, m := range append(append([]*Member{}, c.Coordinators...), c.Workers...) {
		if m.Daemon == nil {
			continue
		}
		log := m.Daemon.Log()
		fmt.Fprintf(&b, "--- %s\n%s\n", m.Name, log[max(0, len(log)-1500):])
	}
	return b.String()
}
