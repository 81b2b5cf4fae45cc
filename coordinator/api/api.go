// Package api is what a coordinator answers to: the Coordinator interface with its contract, its types, and an HTTP client
// and handler for it that run over an SSH channel. Operators' verbs and workers use it; it imports nothing of the coordinator.
package api

import (
	"context"
	"io"
	"math"
	"time"

	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// Coordinator is the cluster as its users and workers see it. Any coordinator answers: a follower passes the call on to the
// leader. Errors are errs.Error values on both sides; without a leader they are errs.Unavailable. Mutating calls return once
// their effect is in the replicated record.
type Coordinator interface {
	// --- anyone with a valid certificate or listed key ---
	// Cluster is who coordinates, and leads. It is the only call that is answered while nobody leads.
	Cluster(ctx context.Context) (ClusterStatus, error)
	Hosts(ctx context.Context) ([]Host, error)
	Workloads(ctx context.Context) ([]Workload, error)
	Workload(ctx context.Context, name string) (Workload, error)
	Migrations(ctx context.Context, workload string) ([]Migration, error) // "" is all; newest first
	Migration(ctx context.Context, id migration.ID) (Migration, error)
	// Evidence is what the record holds on a migration, read linearizably, and what follows from it.
	Evidence(ctx context.Context, id migration.ID) (Evidence, error)
	// Situation asks both hosts, and says what a person may decide about a migration that waits.
	Situation(ctx context.Context, id migration.ID) (Situation, error)
	// WatchMigration calls f with every change of the migration, progress included, until it is final, ctx is done or f fails.
	// The first call comes at once with the state as it is. It survives a change of leader by being called again.
	WatchMigration(ctx context.Context, id migration.ID, f func(Migration) error) error
	Plans(ctx context.Context) ([]Plan, error)
	Plan(ctx context.Context, name string) (Plan, error)
	// WatchPlan is WatchMigration for a plan.
	WatchPlan(ctx context.Context, name string, f func(Plan) error) error
	// Doctor has both hosts look whether a workload can move to target. It changes nothing.
	Doctor(ctx context.Context, workload, target string) (DoctorReport, error)
	// Logs copies a workload's output to w; see workerapi.Worker.
	Logs(ctx context.Context, workload string, opts workerapi.LogOptions, w io.Writer) error

	// --- operators ---
	// Run records a workload and has its host, or the one that has most room, start or adopt it. It returns when the tree runs.
	Run(ctx context.Context, req RunRequest) (Workload, error)
	// Stop ends a workload's tree by a signal (0: SIGTERM), and by SIGKILL after grace (0: 10 s), and returns when it has ended.
	Stop(ctx context.Context, name string, signal int, grace time.Duration) (Workload, error)
	// Remove forgets a workload with all that is left of it on any host, or, with a host that does not own it, what is left of it
	// there.
	Remove(ctx context.Context, name string, o RemoveOptions) error
	// Continue lets a stopped workload run. On a host that does not own it this needs Force, and is refused (errs.Refused)
	// unless the owner's tree is known to have ended: ownership moves first, so that there are never two.
	Continue(ctx context.Context, name string, o ContinueOptions) (Workload, error)
	// Checkpoint and Restore write and read an image in dir on the workload's host, and on host; see workerapi.Worker.
	Checkpoint(ctx context.Context, name, dir string, final migration.FinalState) (workerapi.CheckpointReport, error)
	Restore(ctx context.Context, name, host, dir string, final migration.FinalState) (Workload, error)
	// Migrate admits a migration and returns its record at once; WatchMigration tells the rest. Everything the doctor refuses
	// is refused here, before anything is touched.
	Migrate(ctx context.Context, req MigrateRequest) (Migration, error)
	// AbortMigration asks for a verdict of Abort; errs.Conflict if it has been decided otherwise.
	AbortMigration(ctx context.Context, id migration.ID, reason string) (Migration, error)
	// LimitMigration changes what a migration may send while it copies, in bytes a second; 0 is no limit. errs.Conflict once it is
	// frozen or has ended.
	LimitMigration(ctx context.Context, id migration.ID, bytesPerSecond int64) (Migration, error)
	// LimitHost changes what all sources of a host may send together while they copy, as long as the host is a member; 0 is no limit.
	LimitHost(ctx context.Context, host string, bytesPerSecond int64) (Host, error)
	// DryRun does what Migrate would up to two rounds of copying, really sent, calls f as they go on and last with the forecast, and
	// undoes all of it. Nothing of it is in the record. It ends with ctx.
	DryRun(ctx context.Context, req MigrateRequest, f func(DryRun) error) error
	// Apply records a plan, which begins at once or when it says. It is errs.Conflict while a plan of that name has not ended.
	Apply(ctx context.Context, p PlanSpec) (Plan, error)
	// SteerPlan pauses, resumes or cancels a plan. Running migrations go on to their end unless cancelled.
	SteerPlan(ctx context.Context, name string, to PlanState) (Plan, error)
	// Cordon keeps new workloads and moves off a host (on), or lets them there again. What is there stays.
	Cordon(ctx context.Context, host string, on bool) (Host, error)
	// Drain records a plan that cordons a host and moves all that is there away; a dry run only says where to.
	Drain(ctx context.Context, req DrainRequest) (DrainReport, error)

	// --- admins ---
	// NewToken makes a token for one "worker" or "coordinator", good for ttl: 0 is an hour, 720 hours the most.
	NewToken(ctx context.Context, role string, ttl time.Duration) (Token, error)
	Operators(ctx context.Context) ([]Operator, error)
	SetOperator(ctx context.Context, op Operator) error // role "" removes
	// RemoveHost forgets a host, which its certificates let in no more. One that owns workloads, or is about to, is errs.Conflict.
	RemoveHost(ctx context.Context, name string) error
	// Resolve records the caller's decision about a host that a migration waits for. errs.Conflict if nothing waits for it,
	// errs.Refused if the host answers, or the evidence does not bear it otherwise.
	Resolve(ctx context.Context, id migration.ID, req ResolveRequest) (Migration, error)
	// RotateKeys makes a step of a change of the cluster's key: KeyBegin, KeySwitch, KeyRetire or KeyCancel. It is errs.Conflict
	// while a member is not ready for it, unless force leaves that one behind.
	RotateKeys(ctx context.Context, step string, force bool) (ClusterStatus, error)
	// RemoveCoordinator takes a coordinator out of the cluster, dead or alive; the one that leads hands the lead over first. It is
	// refused (errs.Conflict) if a majority of those that remain does not answer.
	RemoveCoordinator(ctx context.Context, name string) (ClusterStatus, error)

	// --- workers ---
	Heartbeat(ctx context.Context, hb Heartbeat) (HeartbeatReply, error)
	// Verdict is what the record says of a migration, read linearizably: a worker that holds a tree may act on it. A migration
	// the record does not know is errs.NotFound, which is no verdict.
	Verdict(ctx context.Context, id migration.ID) (VerdictReply, error)
	// Renew certifies the worker that calls for as long again; key is its public key in the authorized_keys form.
	Renew(ctx context.Context, key string) (RenewReply, error)

	// --- holders of a token ---
	Join(ctx context.Context, req JoinRequest) (JoinReply, error)
}

// Host is a host as the record and its last heartbeat have it.
type Host struct {
	Name      string              `json:"name"`
	Address   string              `json:"address"`
	Cordoned  bool                `json:"cordoned,omitempty"`
	Bandwidth int64               `json:"bandwidth,omitempty"` // its limit, bytes a second; 0 is none
	Joined    time.Time           `json:"joined"`
	State     string              `json:"state"` // "up", "silent" (no heartbeat for 5 s)
	LastSeen  time.Time           `json:"last_seen,omitzero"`
	Facts     workerapi.HostFacts `json:"facts"`
}

// Workload is a workload as the record has it, with what its host last said.
type Workload struct {
	Name      string          `json:"name"`
	Spec      workload.Spec   `json:"spec"`
	Owner     string          `json:"owner"` // the host that may run it
	Epoch     migration.Epoch `json:"epoch"`
	Migration migration.ID    `json:"migration,omitempty"` // the one under way
	Created   time.Time       `json:"created"`
	Status    workload.Status `json:"status"`
	// Copies are what other hosts said of late that they have of it; none while it is being migrated.
	Copies []Copy `json:"copies,omitempty"`
}

// Copy is what a host that does not own a workload has of it: usually a tree that a migration left fenced.
type Copy struct {
	Host  string          `json:"host"`
	State workload.State  `json:"state"`
	Epoch migration.Epoch `json:"epoch"` // when it was left
}

// RemoveOptions say what to remove of a workload.
type RemoveOptions struct {
	Host  string `json:"host,omitempty"`  // "" is the whole workload; else what is left of it there
	Force bool   `json:"force,omitempty"` // end it first, fenced copies too
}

// ContinueOptions say which tree of a workload is to run.
type ContinueOptions struct {
	Host  string `json:"host,omitempty"`  // "" is the owner
	Force bool   `json:"force,omitempty"` // make Host the owner
	// Off names the owner: the caller's word that it is switched off or cut off for good, which is needed if it does not answer.
	Off string `json:"off,omitempty"`
}

// RunRequest starts or adopts a workload.
type RunRequest struct {
	Spec workload.Spec `json:"spec"`
	Host string        `json:"host"` // "" lets the coordinator place it (kind run only)
}

// MigrateRequest asks for one migration.
type MigrateRequest struct {
	Workload string                `json:"workload"`
	To       string                `json:"to"` // a host, or "anywhere"
	Options  workerapi.MoveOptions `json:"options"`
	Plan     string                `json:"plan,omitempty"`
}

// Migration is one migration as the record has it, with the progress that the leader knows.
type Migration struct {
	ID          migration.ID          `json:"id"`
	Workload    string                `json:"workload"`
	Source      string                `json:"source"`
	Target      string                `json:"target"`
	Epoch       migration.Epoch       `json:"epoch"` // at admission
	Phase       migration.Phase       `json:"phase"`
	Verdict     migration.Verdict     `json:"verdict,omitempty"`
	Reason      string                `json:"reason,omitempty"` // of Abort and Reclaim
	Next        string                `json:"next,omitempty"`   // what to do about it
	Options     workerapi.MoveOptions `json:"options"`
	Plan        string                `json:"plan,omitempty"`
	By          string                `json:"by,omitempty"`          // who asked
	Blackout    time.Duration         `json:"blackout_ns,omitempty"` // measured
	Downtime    Downtime              `json:"downtime"`
	Transitions []Transition          `json:"transitions"`
	Progress    workerapi.Progress    `json:"progress"`
	Filling     *workerapi.Filling    `json:"filling,omitempty"`  // how much of the memory of a tree that runs on the target is in place, nil once all is
	Findings    []workerapi.Finding   `json:"findings,omitempty"` // the doctor's, all but plain GO
}

// DryRun is how a dry run stands. It has ended once Forecast is there.
type DryRun struct {
	Workload string                `json:"workload"`
	Source   string                `json:"source"`
	Target   string                `json:"target"`
	Options  workerapi.MoveOptions `json:"options"`
	Progress workerapi.Progress    `json:"progress"`
	Forecast *workerapi.Forecast   `json:"forecast,omitempty"`
	Findings []workerapi.Finding   `json:"findings,omitempty"` // the doctor's, all but plain GO
}

// Downtime is how a blackout compares with what was asked for and with what was expected.
type Downtime struct {
	Budget    time.Duration `json:"budget_ns"`              // --downtime
	Predicted time.Duration `json:"predicted_ns,omitempty"` // when the freeze was granted; 0 if it was not
	Measured  time.Duration `json:"measured_ns,omitempty"`  // 0 if there was none
	// Error is by how many percent the blackout was longer (above 0) or shorter than predicted; 0 unless both are known.
	Error  float64 `json:"error_percent,omitempty"`
	Missed bool    `json:"missed,omitempty"` // the blackout was longer than the budget
}

// NewDowntime compares the three; a budget of 0 stands for the default.
func NewDowntime(budget, predicted, measured time.Duration) Downtime {
	if budget == 0 {
		budget = migration.DefaultDowntime
	}
	d := Downtime{Budget: budget, Predicted: predicted, Measured: measured, Missed: measured > budget}
	if predicted > 0 && measured > 0 {
		d.Error = math.Round(1000*float64(measured-predicted)/float64(predicted)) / 10
	}
	return d
}

// Transition is one step of a migration in the record, with what it rested on.
type Transition struct {
	Phase migration.Phase `json:"phase"`
	Time  time.Time       `json:"time"`           // the leader's clock when it proposed it
	Index uint64          `json:"index"`          // raft log index
	Term  uint64          `json:"term,omitempty"` // of that entry; 0 if an older drover recorded it
	By    string          `json:"by,omitempty"`   // who proposed it: a coordinator, or the person who asked
	Note  string          `json:"note,omitempty"`
	// Owner may run the workload from here on, Epoch is the workload's.
	Owner   string          `json:"owner,omitempty"`
	Epoch   migration.Epoch `json:"epoch,omitempty"`
	Answers []Answer        `json:"answers,omitempty"` // at most one a host
}

// DoctorReport is the verdict on moving one workload to one host.
type DoctorReport struct {
	Workload string              `json:"workload"`
	Source   string              `json:"source"`
	Target   string              `json:"target"`
	Verdict  string              `json:"verdict"` // the worst of the findings
	Findings []workerapi.Finding `json:"findings"`
}
