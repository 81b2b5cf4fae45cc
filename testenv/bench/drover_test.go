package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/testenv/bench/report"
	"drover/testenv/cluster"
)

// droverMove moves a workload as an operator does.
type droverMove struct {
	*ground
	name    string
	tracker string
	cutFor  time.Duration // the source's cable, once in the first round
}

const (
	droverAddress = "10.77.0.50"
	probation     = "500ms"
)

func startDrover(b *testing.B, g *ground, name string, c report.Case) *droverMove {
	b.Helper()
	args := []string{"run", name, "--host", g.Workers[0].Name}
	if isRedis(c) {
		args = append(args, "--address", droverAddress+"/24")
	}
	if _, err := g.Drover(b.Context(), append(append(args, "--"), commandOf(c)...)...); err != nil {
		b.Fatal(err)
	}
	return &droverMove{ground: g, name: name}
}

func (d *droverMove) address() string { return droverAddress }

func (d *droverMove) log(ctx context.Context) (string, error) {
	return d.Drover(ctx, "logs", d.name, "--tail", "300")
}

func (d *droverMove) end(ctx context.Context) error {
	_, err := d.Drover(ctx, "rm", d.name, "--force")
	return err
}

func (d *droverMove) move(ctx context.Context, see *sights) (report.Run, error) {
	var run report.Run
	w, err := d.Workload(ctx, d.name)
	if err != nil {
		return run, err
	}
	from, to := d.Workers[0], d.Workers[1]
	if w.Owner == to.Name {
		from, to = to, from
	}
	if err := forgetPeak(from); err != nil {
		return run, err
	}
	before, err := sent(from.Host)
	if err != nil {
		return run, err
	}
	healed, wasCut := make(chan error, 1), false
	began := time.Now()
	m, err := d.Migrate(ctx, func(m api.Migration) {
		if m.Phase == migration.Copying {
			see.copying()
		}
		see.filling(m.Phase == migration.Released && m.Filling != nil)
		if d.cutFor > 0 && m.Phase == migration.Copying && m.Progress.PagesSent > 0 {
			go cut(from, d.cutFor, healed)
			d.cutFor, wasCut = 0, true
		}
	}, d.name, to.Name, "--tracker", d.tracker, "--probation", probation)
	if wasCut {
		err = errors.Join(err, <-healed)
	}
	if err != nil {
		return run, fmt.Errorf("%w: %s", err, m.Reason)
	}
	after, err := sent(from.Host)
	if err != nil {
		return run, err
	}
	run = runOf(m, began)
	run.Wire = after - before
	run.Memory, err = peak(from)
	return run, err
}

// cut cuts the host's cable for a while.
func cut(m *cluster.Member, lasts time.Duration, healed chan<- error) {
	if err := m.Link().Cut(); err != nil {
		healed <- err
		return
	}
	time.Sleep(lasts)
	healed <- m.Link().Heal()
}

// runOf is what the record says of a migration.
func runOf(m api.Migration, began time.Time) report.Run {
	r := report.Run{
		Blackout: report.InMillis(m.Blackout), Predicted: report.InMillis(m.Downtime.Predicted),
		Pages: m.Progress.PagesTotal, Codec: m.Progress.Compression, Phases: map[string]report.Millis{},
	}
	for _, t := range m.Transitions {
		since := report.InMillis(t.Time.Sub(began))
		if _, again := r.Phases[string(t.Phase)]; !again {
			r.Phases[string(t.Phase)] = since
		}
		if t.Phase == migration.Released {
			r.Total = since
		}
	}
	for _, round := range m.Progress.Rounds {
		r.Rounds = append(r.Rounds, report.Round{Final: round.Final, Pages: round.PagesSent, Wire: round.WireBytes, Took: report.InMillis(round.Took)})
	}
	return r
}

// forgetPeak makes the kernel count a worker's peak of resident memory anew (proc(5), clear_refs).
func forgetPeak(m *cluster.Member) error {
	return os.WriteFile(m.Path(fmt.Sprintf("/proc/%d/clear_refs", m.Daemon.Pid)), []byte("5"), 0)
}

// peak is how much memory the worker had at most, in bytes, since forgetPeak.
func peak(m *cluster.Member) (int64, error) {
	status, err := os.ReadFile(m.Path(fmt.Sprintf("/proc/%d/status", m.Daemon.Pid)))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("the worker on %s has no VmHWM: %s", m.Name, status)
}
