package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"drover/coordinator/api"
	"drover/engine"
	"drover/engine/track"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// fake is a cluster in memory: hosts alpha, beta and a cordoned gamma; workloads web, broken, slow and late on alpha. Moving
// web succeeds, moving broken is rolled back, slow copies until it is aborted, late is decided before an abort comes.
type fake struct {
	api.Coordinator // calls that no script makes are nil and would panic
	signs           string

	mu         sync.Mutex
	workloads  map[string]api.Workload
	hosts      map[string]api.Host
	migrations []api.Migration
	plans      map[string]api.Plan
	operators  []api.Operator
	aborted    chan struct{}
	watched    chan struct{} // closed when whoever watched late has seen its end
}

var longAgo = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newFake(signs string) *fake {
	f := &fake{signs: signs, workloads: map[string]api.Workload{}, hosts: map[string]api.Host{}, plans: map[string]api.Plan{}, aborted: make(chan struct{}), watched: make(chan struct{})}
	for i, name := range []string{"alpha", "beta", "gamma"} {
		f.hosts[name] = api.Host{
			Name: name, Address: fmt.Sprintf("10.0.0.%d:7202", i+1), State: "up", Cordoned: name == "gamma", Joined: longAgo, LastSeen: time.Now(),
			Facts: workerapi.HostFacts{Name: name, CPUs: 4, CertificateUntil: time.Now().Add(time.Duration(i*i*5-1)*time.Hour + time.Minute/2), // alpha's have expired, gamma's are good
				MemoryTotal: 8e9, MemoryFree: 6e9, Engine: engine.Features{Engine: "criu", Version: "4.2.1", Kernel: "6.12.0", SoftDirty: true}},
		}
	}
	for _, name := range []string{"web", "broken", "slow", "late"} {
		f.put(workload.Spec{Name: name, Kind: workload.Run, Command: []string{"serve", "a b"}, Address: "10.0.0.50/24"}, "alpha")
	}
	return f
}

func (f *fake) put(spec workload.Spec, host string) api.Workload {
	w := api.Workload{
		Name: spec.Name, Spec: spec, Owner: host, Epoch: 1, Created: longAgo,
		Status: workload.Status{Name: spec.Name, Spec: spec, Epoch: 1, State: workload.Running, Pid: 4711, Processes: 2, Threads: 5, RSS: 123456789, Started: longAgo},
	}
	f.workloads[spec.Name] = w
	return w
}

// sign lets a script wait until something has happened.
func (f *fake) sign(name string) error { return os.WriteFile(f.signs+"/"+name, nil, 0o600) }

func (f *fake) workload(name string) (api.Workload, error) {
	w, ok := f.workloads[name]
	if !ok {
		return w, errs.New(errs.NotFound, "no workload is called %q", name).WithNext("drover workloads")
	}
	return w, nil
}

func (f *fake) host(name string) (api.Host, error) {
	h, ok := f.hosts[name]
	if !ok {
		return h, errs.New(errs.NotFound, "no host is called %q", name).WithNext("drover hosts")
	}
	return h, nil
}

func (f *fake) Cluster(context.Context) (api.ClusterStatus, error) {
	return api.ClusterStatus{Name: "test", Leader: "c1", Term: 3, Index: 42, Coordinators: []api.CoordinatorState{
		{Name: "c1", Address: "10.0.0.1:7201", Leader: true, Healthy: true}, {Name: "c2", Address: "10.0.0.2:7201", CertificateUntil: time.Now().Add(3*time.Hour + time.Minute/2)},
	}}, nil
}

func (f *fake) RotateKeys(ctx context.Context, step string, force bool) (api.ClusterStatus, error) {
	status, err := f.Cluster(ctx)
	status.Keys = []api.ClusterKey{
		{Key: "ssh-ed25519 OLD", Fingerprint: "SHA256:old", Signs: step == api.KeyBegin},
		{Key: "ssh-ed25519 NEW", Fingerprint: "SHA256:new", Signs: step != api.KeyBegin},
	}
	if step == api.KeyRetire && !force {
		return status, errs.New(errs.Conflict, "not every member is ready: host gamma").WithNext("wait for them")
	}
	if step == api.KeySwitch {
		status.Keys[0].Waiting = []string{"host gamma"}
	}
	return status, err
}

func (f *fake) RemoveCoordinator(ctx context.Context, name string) (api.ClusterStatus, error) {
	st, err := f.Cluster(ctx)
	switch name {
	case "c2":
		st.Coordinators = st.Coordinators[:1]
	case "c1":
		err = errs.New(errs.Conflict, "without c1 there are 1 coordinators, and only 0 of them answer").WithNext("drover status")
	default:
		err = errs.New(errs.NotFound, "no coordinator is called %q", name).WithNext("drover status lists them")
	}
	return st, err
}

func (f *fake) Hosts(context.Context) ([]api.Host, error) {
	return []api.Host{f.hosts["alpha"], f.hosts["beta"], f.hosts["gamma"]}, nil
}

func (f *fake) Workloads(context.Context) ([]api.Workload, error) {
	return []api.Workload{f.workloads["broken"], f.workloads["late"], f.workloads["slow"], f.workloads["web"]}, nil
}

func (f *fake) Workload(_ context.Context, name string) (api.Workload, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.workload(name)
}

func (f *fake) Run(_ context.Context, req api.RunRequest) (api.Workload, error) {
	if req.Host == "" {
		req.Host = "alpha"
	}
	if _, err := f.host(req.Host); err != nil {
		return api.Workload{}, err
	}
	if w, err := f.workload(req.Spec.Name); err == nil {
		return w, errs.New(errs.Conflict, "a workload called %s exists already, on %s", w.Name, w.Owner)
	}
	return f.put(req.Spec, req.Host), nil
}

func (f *fake) Stop(_ context.Context, name string, signal int, grace time.Duration) (api.Workload, error) {
	w, err := f.workload(name)
	w.Status.State, w.Status.Signal = workload.Exited, signal
	return w, err
}

func (f *fake) Remove(_ context.Context, name string, o api.RemoveOptions) error {
	if _, err := f.workload(name); err != nil {
		return err
	}
	if o.Host != "" {
		if _, err := f.host(o.Host); err != nil {
			return err
		}
		return nil
	}
	if !o.Force {
		return errs.New(errs.Conflict, "%s still runs on alpha", name).WithNext("drover stop %s, or --force", name)
	}
	return nil
}

func (f *fake) Continue(_ context.Context, name string, o api.ContinueOptions) (api.Workload, error) {
	w, err := f.workload(name)
	switch {
	case err != nil:
		return w, err
	case o.Host != "" && o.Host != w.Owner && !o.Force:
		return w, errs.New(errs.Refused, "%s is on %s", name, w.Owner).WithNext("drover stop %s", name)
	case o.Host != "" && o.Host != w.Owner && o.Off != w.Owner:
		return w, errs.New(errs.Refused, "%s may still run on %s", name, w.Owner).WithNext("--off %s", w.Owner)
	case o.Host != "":
		w.Owner, w.Copies = o.Host, []api.Copy{{Host: w.Owner, State: workload.Fenced, Epoch: 1}}
	}
	return w, nil
}

func (f *fake) Logs(_ context.Context, name string, opts workerapi.LogOptions, w io.Writer) error {
	if _, err := f.workload(name); err != nil {
		return err
	}
	_, err := io.WriteString(w, "first line\nsecond line\n")
	return err
}

func (f *fake) Checkpoint(_ context.Context, name, dir string, final migration.FinalState) (workerapi.CheckpointReport, error) {
	_, err := f.workload(name)
	return workerapi.CheckpointReport{Dir: dir, Bytes: 1 << 20, Final: final, Digest: "abcd"}, err
}

func (f *fake) Doctor(_ context.Context, name, target string) (api.DoctorReport, error) {
	w, err := f.workload(name)
	if err != nil {
		return api.DoctorReport{}, err
	}
	if _, err := f.host(target); err != nil {
		return api.DoctorReport{}, err
	}
	r := api.DoctorReport{Workload: name, Source: w.Owner, Target: target, Verdict: workerapi.Go, Findings: []workerapi.Finding{
		{Check: "cpu", Host: target, Verdict: workerapi.Go, Detail: "has every feature"},
	}}
	if name == "broken" {
		r.Verdict = workerapi.NoGo
		r.Findings = append(r.Findings, workerapi.Finding{Check: "ports", Host: target, Verdict: workerapi.NoGo, Detail: "port 6379 is taken", Mend: "stop who has it"})
	}
	return r, nil
}

func (f *fake) Migrate(_ context.Context, req api.MigrateRequest) (api.Migration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.workload(req.Workload)
	if err != nil {
		return api.Migration{}, err
	}
	h, err := f.host(req.To)
	switch {
	case err != nil:
		return api.Migration{}, err
	case req.To == w.Owner:
		return api.Migration{}, errs.New(errs.Invalid, "%s is on %s already", w.Name, req.To).WithNext("choose another host, or \"anywhere\"")
	case h.Cordoned:
		return api.Migration{}, errs.New(errs.Conflict, "host %s is cordoned", req.To).WithNext("drover uncordon %s", req.To)
	}
	m := api.Migration{ID: migration.ID(fmt.Sprintf("m%d-%s", len(f.migrations)+1, w.Name)), Workload: w.Name, Source: w.Owner, Target: req.To, Epoch: 1, Phase: migration.Admitted, Options: req.Options, By: "operator:me:admin"}
	m.Transitions = []api.Transition{{Phase: migration.Admitted, Time: longAgo, Index: 7}}
	f.migrations = append(f.migrations, m)
	w.Migration = m.ID
	f.workloads[w.Name] = w
	return m, nil
}

func (f *fake) Migrations(_ context.Context, name string) (out []api.Migration, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range slices.Backward(f.migrations) {
		if name == "" || m.Workload == name {
			out = append(out, m)
		}
	}
	return out, nil
}

func (f *fake) Migration(_ context.Context, id migration.ID) (api.Migration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.migrations {
		if m.ID == id {
			return m, nil
		}
	}
	return api.Migration{}, errs.New(errs.NotFound, "no migration is called %q", id).WithNext("drover migrations")
}

// Evidence is whole for web, lacks the end of what is under way, and what beta had said for broken.
func (f *fake) Evidence(ctx context.Context, id migration.ID) (api.Evidence, error) {
	m, err := f.Migration(ctx, id)
	e := api.Evidence{
		Migration: id, Workload: m.Workload, Source: m.Source, Target: m.Target, SourceBoot: "boot-a", TargetBoot: "boot-b", By: m.By, Epoch: m.Epoch, Phase: m.Phase,
		Entries: m.Transitions, Replicas: []api.Replica{{Name: "c1", Index: 42}, {Name: "c2"}}, Holds: []string{"one verdict: " + string(m.Verdict)},
		Unknown: []string{}, Wrong: []string{}, Over: m.Phase.Final(),
	}
	for i := range e.Entries {
		e.Entries[i].Answers = []api.Answer{{Host: "beta", Role: migration.Target, Heard: longAgo, Step: workerapi.StepHeld, Digest: "d1"}}
	}
	if m.Workload == "broken" {
		e.Unknown = []string{"what beta had said when it ended"}
	}
	return e, err
}

// Situation is that beta is silent after COMMIT, in every migration.
func (f *fake) Situation(ctx context.Context, id migration.ID) (api.Situation, error) {
	m, err := f.Migration(ctx, id)
	s := api.Situation{
		Migration: id, Workload: m.Workload, Source: m.Source, Target: m.Target, Owner: m.Target, Epoch: 2, Phase: migration.Committed, Waiting: "beta has not answered since COMMIT",
		Answers: []api.Answer{{Host: "alpha", Role: migration.Source, Heard: longAgo, Step: workerapi.StepStaged}, {Host: "beta", Role: migration.Target, Silent: longAgo}},
		Because: []string{"host beta does not answer"},
		Choices: []api.Choice{{Decision: api.TargetIsDead, Host: "beta", First: "power beta off", Then: "alpha owns it again"}},
	}
	if m.Phase.Final() {
		s.Phase, s.Choices, s.Because = m.Phase, nil, []string{"it has ended"}
	}
	return s, err
}

func (f *fake) Resolve(ctx context.Context, id migration.ID, req api.ResolveRequest) (api.Migration, error) {
	m, err := f.Migration(ctx, id)
	switch {
	case err != nil:
	case m.Phase.Final():
		err = errs.New(errs.Conflict, "nothing waits for it").WithNext("drover resolve %s says what can be decided", id)
	case req.Decision != api.TargetIsDead:
		err = errs.New(errs.Refused, "host alpha answers")
	case req.Vouch != "beta":
		err = errs.New(errs.Invalid, "%s is vouched for, and the target is beta", req.Vouch)
	default:
		m = f.step(m, migration.Reclaimed)
	}
	return m, err
}

// step brings a migration into a phase, a quarter of a second after the one before.
func (f *fake) step(m api.Migration, to migration.Phase) api.Migration {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.Phase, m.Verdict = to, to.Verdict()
	n := len(m.Transitions)
	at := longAgo.Add(time.Duration(n*250) * time.Millisecond)
	m.Transitions = append(m.Transitions[:n:n], api.Transition{Phase: to, Time: at, Index: 7 + uint64(n)})
	for i := range f.migrations {
		if f.migrations[i].ID == m.ID {
			f.migrations[i] = m
		}
	}
	return m
}

func (f *fake) WatchMigration(ctx context.Context, id migration.ID, tell func(api.Migration) error) error {
	m, err := f.Migration(ctx, id)
	if err != nil {
		return err
	}
	if m.Phase.Final() {
		return tell(m)
	}
	m = f.step(m, migration.Copying)
	m.Progress = workerapi.Progress{Tracker: "softdirty", Compression: "zstd", Round: 1, PagesTotal: 51200, PagesSent: 1000, PagesLeft: 50200, WireBytes: 3e6, Rate: 41e6, DirtyRate: 120, BlackoutGuess: 180 * time.Millisecond, TimeLeft: 4 * time.Second}
	if err := tell(m); err != nil {
		return err
	}
	var path []migration.Phase
	switch m.Workload {
	case "slow", "late":
		if err := f.sign("watched-" + m.Workload); err != nil {
			return err
		}
		select {
		case <-f.aborted:
		case <-ctx.Done():
			return ctx.Err()
		}
		m.Reason = "interrupted by the operator"
		path = []migration.Phase{migration.Aborted, migration.RolledBack}
		if m.Workload == "late" {
			m.Reason = ""
			path = untilDone
			defer close(f.watched)
		}
	case "broken":
		m.Reason, m.Next = "restore on beta: libc-2.41.so differs", "install the same libc on beta"
		path = []migration.Phase{migration.Aborted, migration.RolledBack}
	default:
		m.Progress.Rounds = []workerapi.Round{
			{N: 1, PagesSent: 51200, WireBytes: 60e6, Took: 1500 * time.Millisecond, Track: track.RoundStats{Scanned: 51200, Emitted: 51200}},
			{N: 2, Final: true, PagesSent: 12, WireBytes: 9000, Took: 40 * time.Millisecond, Track: track.RoundStats{Scanned: 51200, Emitted: 12}},
		}
		m.Blackout = 213 * time.Millisecond
		m.Downtime = api.NewDowntime(m.Options.Downtime, 180*time.Millisecond, m.Blackout)
		path = untilDone
	}
	for _, p := range path {
		m = f.step(m, p)
		if err := tell(m); err != nil {
			return err
		}
	}
	return nil
}

// untilDone is the way of a migration that succeeds, once it has copied.
var untilDone = []migration.Phase{migration.Frozen, migration.Staged, migration.Held, migration.Committed, migration.Released, migration.Done}

func (f *fake) AbortMigration(ctx context.Context, id migration.ID, reason string) (api.Migration, error) {
	m, err := f.Migration(ctx, id)
	if err != nil {
		return m, err
	}
	if m.Phase.Final() {
		return m, errs.New(errs.Conflict, "migration %s is decided: commit", id)
	}
	close(f.aborted)
	if m.Workload == "late" {
		<-f.watched // the answer crosses the end
		return m, errs.New(errs.Conflict, "migration %s is decided: commit", id)
	}
	return m, nil
}

func (f *fake) LimitMigration(ctx context.Context, id migration.ID, rate int64) (api.Migration, error) {
	m, err := f.Migration(ctx, id)
	m.Options.Bandwidth = rate
	return m, err
}

func (f *fake) LimitHost(_ context.Context, name string, rate int64) (api.Host, error) {
	h, ok := f.hosts[name]
	if !ok {
		return h, errs.New(errs.NotFound, "no host is called %q", name)
	}
	h.Bandwidth = rate
	return h, nil
}

func (f *fake) DryRun(_ context.Context, req api.MigrateRequest, tell func(api.DryRun) error) error {
	w, err := f.workload(req.Workload)
	if err != nil {
		return err
	}
	d := api.DryRun{Workload: w.Name, Source: w.Owner, Target: req.To, Options: req.Options.Resolved(), Progress: workerapi.Progress{Tracker: "wp", Round: 1, WireBytes: 3e6}}
	if err := tell(d); err != nil {
		return err
	}
	d.Progress.Round = 2
	d.Forecast = &workerapi.Forecast{Ends: workerapi.EndsOver, Blackout: 700 * time.Millisecond, Rounds: 21, Took: 9 * time.Second, WireBytes: 200e6, DirtyRate: 12000, Rate: 110e6, Throttle: 80}
	return tell(d)
}

func (f *fake) Apply(_ context.Context, spec api.PlanSpec) (api.Plan, error) {
	p := api.Plan{Spec: spec, State: api.PlanDone, Created: longAgo, Started: longAgo, Ended: longAgo}
	for _, item := range spec.Migrations {
		w, err := f.workload(item.Workload)
		if err != nil {
			return p, err
		}
		r := api.PlanResult{PlanItem: item, From: w.Owner, State: "moved", Migration: migration.ID("m1-" + w.Name)}
		if w.Name == "broken" {
			r.State, r.Reason, p.State = "failed", "port 6379 is taken on beta", api.PlanFailed
		}
		p.Items = append(p.Items, r)
	}
	f.plans[spec.Name] = p
	return p, nil
}

func (f *fake) Plan(_ context.Context, name string) (api.Plan, error) {
	p, ok := f.plans[name]
	if !ok {
		return p, errs.New(errs.NotFound, "no plan is called %q", name).WithNext("drover plans")
	}
	return p, nil
}

func (f *fake) WatchPlan(ctx context.Context, name string, tell func(api.Plan) error) error {
	p, err := f.Plan(ctx, name)
	if err != nil {
		return err
	}
	return tell(p)
}

func (f *fake) Cordon(_ context.Context, name string, on bool) (api.Host, error) {
	h, err := f.host(name)
	h.Cordoned = on
	return h, err
}

func (f *fake) Drain(_ context.Context, req api.DrainRequest) (api.DrainReport, error) {
	if _, err := f.host(req.Host); err != nil {
		return api.DrainReport{}, err
	}
	return api.DrainReport{Host: req.Host, Items: []api.PlanResult{
		{PlanItem: api.PlanItem{Workload: "web", To: "beta"}, From: req.Host, State: "waiting"},
		{PlanItem: api.PlanItem{Workload: "broken"}, From: req.Host, State: "skipped", Reason: "port 6379 is taken everywhere"},
	}}, nil
}

func (f *fake) NewToken(_ context.Context, role string, ttl time.Duration) (api.Token, error) {
	return api.Token{Token: "drover1.TEST", Role: role, Expires: time.Now().Add(ttl)}, nil
}

func (f *fake) SetOperator(_ context.Context, op api.Operator) error {
	f.operators = append(f.operators, op)
	return nil
}

func (f *fake) Operators(context.Context) ([]api.Operator, error) { return f.operators, nil }
