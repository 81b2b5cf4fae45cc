package coordinator

import (
	"context"
	"errors"
	"sync"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/drive"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

const (
	// dryLook is how often the hosts of a dry run are asked how it stands. A worker that nobody asks for two seconds, because the
	// coordinator has gone, asks for a verdict by itself, and undoes what the record does not know.
	dryLook = 250 * time.Millisecond
	// dryCall bounds one call of a dry run to a worker.
	dryCall = 30 * time.Second
)

// dryRuns are the workloads of which this leader makes a dry run.
type dryRuns struct {
	mu sync.Mutex
	of map[string]bool
}

// begin takes a workload for a dry run; end gives it back.
func (d *dryRuns) begin(workload string) (end func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of[workload] {
		return nil, d.busy(workload)
	}
	d.of[workload] = true
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.of, workload)
	}, nil
}

// check refuses a workload of which a dry run is under way.
func (d *dryRuns) check(workload string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of[workload] {
		return d.busy(workload)
	}
	return nil
}

func (*dryRuns) busy(workload string) error {
	return errs.New(errs.Conflict, "a dry run of %s is under way", workload).WithNext("wait until it is over, or interrupt it where it was begun")
}

// DryRun opens both hosts' sessions as a migration's driver would, waits for the source's forecast and undoes both. None of it is
// in the record: what a leader that dies leaves, the workers undo by themselves.
func (c *Coordinator) DryRun(ctx context.Context, req api.MigrateRequest, f func(api.DryRun) error) (err error) {
	l, err := c.leading()
	if err != nil {
		return err
	}
	if err := req.Options.Check(); err != nil {
		return err
	}
	w, err := c.movable(req.Workload, req.To)
	if err != nil {
		return err
	}
	end, err := l.dryRuns.begin(w.Name)
	if err != nil {
		return err
	}
	defer end()
	seen, err := c.examine(ctx, l, w, req.To)
	if err != nil {
		return err
	}
	d := dryRun{c: c, id: newMigrationID(w.Name), workload: w, seen: seen, options: req.Options.Resolved()}
	deadline := d.options.Deadline
	if deadline == 0 {
		deadline = migration.DefaultDeadline
	}
	timed, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	c.log.Info("dry run", "workload", w.Name, "source", w.Owner, "target", seen.target, "by", by(ctx))
	defer func() { err = errors.Join(err, d.undo(context.WithoutCancel(ctx))) }()
	if err = d.run(timed, f); timed.Err() != nil && ctx.Err() == nil && l.ctx.Err() == nil {
		err = errs.New(errs.Timeout, "the dry run of %s was not over in %s", w.Name, deadline).WithNext("give it more time with --deadline")
	}
	return err
}

// dryRun is one that is under way.
type dryRun struct {
	c        *Coordinator
	id       migration.ID
	workload record.Workload
	seen     examination
	options  workerapi.MoveOptions
	opened   []workerapi.Worker // also those that may have been
}

func (d *dryRun) run(ctx context.Context, f func(api.DryRun) error) error {
	src, err := d.c.hostRecord(d.workload.Owner)
	if err != nil {
		return err
	}
	dst, err := d.c.hostRecord(d.seen.target)
	if err != nil {
		return err
	}
	req := workerapi.OpenRequest{
		Migration: d.id, Epoch: d.workload.Epoch, Spec: d.workload.Spec, Inventory: d.seen.inventory, Options: d.options, DryRun: true,
		Source: workerapi.Peer{Host: src.Name, Address: src.Address}, Target: workerapi.Peer{Host: dst.Name, Address: dst.Address},
		HostLimit: &src.Bandwidth,
	}
	d.c.node.Read(func(s *record.State) { req.Past = drive.Past(s, src.Name, dst.Name) })
	source, target := d.c.worker(src), d.c.worker(dst)
	if err := d.open(ctx, target, req, migration.Target); err != nil {
		return err
	}
	if err := d.open(ctx, source, req, migration.Source); err != nil {
		return err
	}
	tick := time.NewTicker(dryLook)
	defer tick.Stop()
	for {
		st, err := d.look(ctx, source)
		if err != nil {
			return err
		}
		if _, err := d.look(ctx, target); err != nil {
			return err
		}
		now := api.DryRun{
			Workload: d.workload.Name, Source: src.Name, Target: dst.Name, Options: d.options,
			Progress: st.Progress, Forecast: st.Progress.Forecast, Findings: d.seen.notable(),
		}
		if err := f(now); err != nil || now.Forecast != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *dryRun) open(ctx context.Context, w workerapi.Worker, req workerapi.OpenRequest, role migration.Role) error {
	req.Role = role
	d.opened = append(d.opened, w)
	ctx, cancel := context.WithTimeout(ctx, dryCall)
	defer cancel()
	_, err := w.Open(ctx, req)
	return err
}

// look asks a host how its part stands; one that cannot go on ends the dry run with its reason.
func (d *dryRun) look(ctx context.Context, w workerapi.Worker) (workerapi.SessionState, error) {
	ctx, cancel := context.WithTimeout(ctx, dryCall)
	defer cancel()
	st, err := w.Session(ctx, d.id)
	if err == nil && st.Step == workerapi.StepFailed {
		err = errs.New(errs.KindNamed(st.Kind), "%s", st.Error).WithNext("%s", st.Next)
	}
	return st, err
}

// undo ends what was opened. A host that never had it has nothing to undo.
func (d *dryRun) undo(ctx context.Context) error {
	var all []error
	for _, w := range d.opened {
		ctx, cancel := context.WithTimeout(ctx, dryCall)
		_, err := w.Decide(ctx, d.id, migration.Abort, d.workload.Epoch)
		cancel()
		if err != nil && errs.KindOf(err) != errs.NotFound {
			all = append(all, errs.New(errs.KindOf(err), "undo the dry run of %s: %w", d.workload.Name, err).
				WithNext("its hosts undo it by themselves once they can be reached"))
		}
	}
	return errors.Join(all...)
}
