package coordinator

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"drover/coordinator/api"
	"drover/coordinator/record"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// anywhere lets the coordinator choose the target.
const anywhere = "anywhere"

// Migrate looks at everything before anything is touched: the record, the options, the tree on its source, the target's word
// on it. Only then is the migration in the record, and its driver takes over.
func (c *Coordinator) Migrate(ctx context.Context, req api.MigrateRequest) (api.Migration, error) {
	l, err := c.leading()
	if err != nil {
		return api.Migration{}, err
	}
	if err := req.Options.Check(); err != nil {
		return api.Migration{}, err
	}
	w, err := c.movable(req.Workload, req.To)
	if err == nil {
		err = l.dryRuns.check(req.Workload)
	}
	if err != nil {
		return api.Migration{}, err
	}
	seen, err := c.examine(ctx, l, w, req.To)
	if err != nil {
		return api.Migration{}, err
	}
	return c.admit(ctx, l, w, req, seen)
}

// movable is the workload, if the record does not speak against moving it there.
func (c *Coordinator) movable(name, to string) (record.Workload, error) {
	w, err := c.workloadRecord(name)
	if err != nil {
		return w, err
	}
	switch {
	case w.Migration != "":
		return w, errs.New(errs.Conflict, "%s is being migrated already, by %s", name, w.Migration).WithNext("drover watch %s", w.Migration)
	case w.Life != record.Started:
		return w, errs.New(errs.Conflict, "%s is %s on %s: only a workload that lives can be moved", name, w.Life, w.Owner).WithNext("drover show %s", name)
	case to == w.Owner:
		return w, errs.New(errs.Invalid, "%s is on %s already", name, to).WithNext("choose another host, or \"anywhere\"")
	case to == anywhere:
		return w, nil
	case to == "":
		return w, errs.New(errs.Invalid, "%s: no target is named", name).WithNext("--to HOST, or --to anywhere")
	}
	h, err := c.hostRecord(to)
	if err == nil && h.Cordoned {
		err = errs.New(errs.Conflict, "host %s is cordoned", to).WithNext("drover uncordon %s, or choose another host", to)
	}
	return w, err
}

// examination is what the doctor saw.
type examination struct {
	target     string
	inventory  workerapi.Inventory
	findings   []workerapi.Finding // of both hosts
	sourceBoot string
	targetBoot string
}

// examine has the source look at the tree and the target judge it; "anywhere" goes on to the next best host while the
// doctor speaks against one.
func (c *Coordinator) examine(ctx context.Context, l *lead, w record.Workload, to string) (examination, error) {
	inv, err := c.inspect(ctx, l, w)
	if err != nil {
		return examination{}, err
	}
	if to != anywhere {
		seen, err := c.judge(ctx, l, w, to, inv)
		if err == nil {
			err = seen.refusal(w.Name)
		}
		return seen, err
	}
	exclude := map[string]string{}
	for {
		target, err := c.chooseTarget(l, w, inv, exclude)
		if err != nil {
			return examination{}, err
		}
		seen, err := c.judge(ctx, l, w, target, inv)
		if err == nil {
			err = seen.refusal(w.Name)
		}
		if err == nil || ctx.Err() != nil {
			return seen, err
		}
		exclude[target] = err.Error()
	}
}

func (c *Coordinator) inspect(ctx context.Context, l *lead, w record.Workload) (workerapi.Inventory, error) {
	source, err := c.awake(l, w.Owner)
	if err != nil {
		return workerapi.Inventory{}, err
	}
	inv, err := source.Inspect(ctx, w.Name)
	if err != nil {
		return inv, errs.New(errs.KindOf(err), "look at %s on %s: %w", w.Name, w.Owner, err)
	}
	return inv, nil
}

func (c *Coordinator) judge(ctx context.Context, l *lead, w record.Workload, to string, inv workerapi.Inventory) (examination, error) {
	seen := examination{target: to, inventory: inv, findings: inv.Findings}
	target, err := c.awake(l, to)
	if err != nil {
		return seen, err
	}
	if seen.sourceBoot, err = c.boot(ctx, l, w.Owner); err != nil {
		return seen, err
	}
	if seen.targetBoot, err = c.boot(ctx, l, to); err != nil {
		return seen, err
	}
	judged, err := target.Judge(ctx, inv)
	if err != nil {
		return seen, errs.New(errs.KindOf(err), "ask host %s whether it can take %s: %w", to, w.Name, err)
	}
	seen.findings = append(append([]workerapi.Finding{}, inv.Findings...), judged...)
	return seen, nil
}

// boot is the host's boot id: what it last said or, if this leader has not heard of it yet, what it says now.
func (c *Coordinator) boot(ctx context.Context, l *lead, host string) (string, error) {
	if boot := l.presence.of(host).Facts.Boot; boot != "" {
		return boot, nil
	}
	h, err := c.hostRecord(host)
	if err != nil {
		return "", err
	}
	facts, err := c.worker(h).Host(ctx)
	if err != nil {
		return "", errs.New(errs.KindOf(err), "ask host %s: %w", host, err)
	}
	return facts.Boot, nil
}

// refusal is the error that the findings amount to, nil if there is no NO-GO among them.
func (e examination) refusal(workload string) error {
	var no []string
	next := ""
	for _, f := range e.findings {
		if f.Verdict != workerapi.NoGo {
			continue
		}
		no = append(no, fmt.Sprintf("%s on %s: %s", f.Check, f.Host, f.Detail))
		if next == "" {
			next = f.Mend
		}
	}
	if len(no) == 0 {
		return nil
	}
	return errs.New(errs.Refused, "%s cannot move to %s: %s", workload, e.target, strings.Join(no, "; ")).WithNext("%s", next)
}

// notable are the findings worth keeping: all but plain GO.
func (e examination) notable() (out []workerapi.Finding) {
	for _, f := range e.findings {
		if f.Verdict != workerapi.Go {
			out = append(out, f)
		}
	}
	return out
}

func (c *Coordinator) admit(ctx context.Context, l *lead, w record.Workload, req api.MigrateRequest, seen examination) (api.Migration, error) {
	req.Options = req.Options.Resolved()
	id := newMigrationID(w.Name)
	deadline := req.Options.Deadline
	if deadline == 0 {
		deadline = migration.DefaultDeadline
	}
	l.drivers.Inspected(id, seen.inventory)
	_, err := c.node.Propose(ctx, by(ctx), record.Admit{
		Migration: id, Workload: w.Name, Source: w.Owner, Target: seen.target, Epoch: w.Epoch,
		SourceBoot: seen.sourceBoot, TargetBoot: seen.targetBoot, Options: req.Options, Plan: req.Plan,
		Deadline: time.Now().UTC().Add(deadline), Findings: seen.notable(),
	})
	if err != nil {
		l.drivers.NotAdmitted(id)
		return api.Migration{}, err
	}
	return c.Migration(ctx, id)
}

// newMigrationID is the workload's name, so that people know what it is about, and enough chance to be unique.
func newMigrationID(workload string) migration.ID {
	if len(workload) > 48 {
		workload = workload[:48]
	}
	return migration.ID(workload + "-" + strings.ToLower(rand.Text()[:8]))
}

// Doctor says what Migrate would say.
func (c *Coordinator) Doctor(ctx context.Context, name, to string) (api.DoctorReport, error) {
	l, err := c.leading()
	if err != nil {
		return api.DoctorReport{}, err
	}
	w, err := c.movable(name, to)
	if err != nil {
		return api.DoctorReport{}, err
	}
	seen, err := c.examine(ctx, l, w, to)
	if err != nil && (errs.KindOf(err) != errs.Refused || seen.target == "") {
		return api.DoctorReport{}, err
	}
	out := api.DoctorReport{Workload: name, Source: w.Owner, Target: seen.target, Verdict: workerapi.Go, Findings: seen.findings}
	for _, f := range seen.findings {
		if f.Verdict == workerapi.NoGo || out.Verdict == workerapi.Go {
			out.Verdict = f.Verdict
		}
	}
	return out, nil
}

// LimitMigration changes a migration's limit in the record; its driver tells the source.
func (c *Coordinator) LimitMigration(ctx context.Context, id migration.ID, bytesPerSecond int64) (api.Migration, error) {
	if _, err := c.leading(); err != nil {
		return api.Migration{}, err
	}
	if _, err := c.node.Propose(ctx, by(ctx), record.Bandwidth{Migration: id, BytesPerSecond: bytesPerSecond}); err != nil {
		return api.Migration{}, err
	}
	return c.Migration(ctx, id)
}

// AbortMigration proposes ABORT from whatever undecided phase the migration is in.
func (c *Coordinator) AbortMigration(ctx context.Context, id migration.ID, reason string) (api.Migration, error) {
	if reason == "" {
		reason = "aborted by " + by(ctx)
	}
	for refused := migration.Phase(""); ; {
		if _, err := c.leading(); err != nil {
			return api.Migration{}, err
		}
		m, err := c.migrationRecord(id)
		if err != nil {
			return api.Migration{}, err
		}
		switch m.Verdict() {
		case migration.Abort:
			return c.Migration(ctx, id)
		case migration.Commit, migration.Reclaim:
			return api.Migration{}, errs.New(errs.Conflict, "migration %s can no longer be aborted: its verdict is %s", id, m.Verdict()).
				WithNext("move %s back when it has ended", m.Workload)
		}
		_, err = c.node.Propose(ctx, by(ctx), record.Step{Migration: id, From: m.Phase, Epoch: m.Epoch, Events: []migration.Event{migration.EvAbort}, Reason: reason})
		if err != nil && (errs.KindOf(err) != errs.Conflict || refused == m.Phase) {
			return api.Migration{}, err
		} // after a first conflict the phase is another one: look again
		if err != nil {
			refused = m.Phase
		}
	}
}
