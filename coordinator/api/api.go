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
	WatchPlan(ctx context.Context, name string, f func(Plan) error) error
	Doctor(ctx context.Context, workload, target string) (DoctorReport, error)
	Logs(ctx context.Context, workload string, opts workerapi.LogOptions, w io.Writer) error

	// --- operators ---
	Run(ctx context.Context, req RunRequest) (Workload, error)
	Stop(ctx context.Context, name string, signal int, grace time.Duration) (Workload, error)
	// Remove forgets a workload with all that is left of it on any host, or, with a host that does not own it, what is left of it
	// there.
	Remove(ctx context.Context, name string, o RemoveOptions) error
	// Continue lets a stopped workload run. On a host that does not own it this needs Force, and is refused (errs.Refused)
	// unless the owner's tree is known to have ended: ownership moves first, so that there are never two.
	Continue(ctx context.Context, name string, o ContinueOptions) (Workload, error)
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
	Apply(ctx context.Context, p PlanSpec) (Plan, error)
	// SteerPlan pauses, resumes or cancels a plan. Running migrations go on to their end unless cancelled.
	SteerPlan(ctx context.Context, name string, to PlanState) (Plan, error)
	Cordon(ctx context.Context, host string, on bool) (Host, error)
	Drain(ctx context.Context, req DrainRequest) (DrainReport, error)

	// --- admins ---
	NewToken(ctx context.Context, role string, ttl time.Duration) (Token, error)
	Operators(ctx context.Context) ([]Operator, error)
	SetOperator(ctx context.Context, op Operator) error // role "" removes
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

// ClusterStatus is who coordinates.
type ClusterStatus struct {
	Name         string             `json:"name"`
	Leader       string             `json:"leader"` // "" if there is none
	Term         uint64             `json:"term"`
	Index        uint64             `json:"index"` // last applied
	Coordinators []CoordinatorState `json:"coordinators"`
	Keys         []ClusterKey       `json:"keys,omitempty"` // of the authority, oldest first; none until it was first changed
	// UnderWay are the migrations that have not ended, as far as the coordinator that answers knows; only while nobody leads, when no
	// other call says so.
	UnderWay []UnderWay `json:"under_way,omitempty"`
}

// Steps of a change of the cluster's key.
const (
	KeyBegin  = "begin"  // a new key is made, held by all coordinators and trusted by all beside the old one, which signs
	KeySwitch = "switch" // the new one signs; everybody renews their certificates at once; both are trusted
	KeyRetire = "retire" // the old one is trusted no more
	KeyCancel = "cancel" // before the switch: the new one is trusted no more
)

// ClusterKey is a public key of the cluster's authority.
type ClusterKey struct {
	Key         string    `json:"key"`         // authorized_keys form, as in client.yaml
	Fingerprint string    `json:"fingerprint"` // "SHA256:…"
	Signs       bool      `json:"signs,omitempty"`
	Since       time.Time `json:"since"`
	// Waiting are the members that a new key's switch or an old key's retirement would cut off.
	Waiting []string `json:"waiting,omitempty"`
}

// UnderWay is a migration that waits for a leader.
type UnderWay struct {
	Migration migration.ID    `json:"migration"`
	Workload  string          `json:"workload"`
	Source    string          `json:"source"`
	Target    string          `json:"target"`
	Phase     migration.Phase `json:"phase"`
	Since     time.Time       `json:"since"`
}

// CoordinatorState is one member.
type CoordinatorState struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Leader  bool   `json:"leader,omitempty"`
	Healthy bool   `json:"healthy"`
	// CertificateUntil is when its certificates run out unless it renews them before; zero if it did not say.
	CertificateUntil time.Time `json:"certificate_until,omitzero"`
	// Trusts, Holds and SignedBy are fingerprints: the authorities that it trusts, those whose private keys it has, and the one that
	// signed its certificates.
	Trusts   []string `json:"trusts,omitempty"`
	Holds    []string `json:"holds,omitempty"`
	SignedBy string   `json:"signed_by,omitempty"`
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

// PlanSpec is what `drover apply` sends.
type PlanSpec struct {
	Name       string        `json:"name"`
	Migrations []PlanItem    `json:"migrations"` // 1..10,000; done in this order as limits allow
	Parallel   int           `json:"parallel"`   // at once in all; default 4
	PerSource  int           `json:"per_source"` // default 2
	PerTarget  int           `json:"per_target"` // default 2
	OnFailure  string        `json:"on_failure"` // "continue" (default), "stop", "move-back"
	StartAt    time.Time     `json:"start_at,omitzero"`
	Cron       string        `json:"cron,omitempty"`        // starts again at each tick; five fields, UTC
	Deadline   time.Duration `json:"deadline_ns,omitempty"` // from its start; nothing new begins after it
	// Drain is set on plans that empty a host; their items are found when the plan starts and again as long as any remain.
	Drain string `json:"drain,omitempty"`
	// DrainOptions are those of every move of a drain.
	DrainOptions workerapi.MoveOptions `json:"drain_options,omitzero"`
}

// PlanItem is one wanted move.
type PlanItem struct {
	Workload string                `json:"workload"`
	To       string                `json:"to"` // a host, or "anywhere"
	Options  workerapi.MoveOptions `json:"options"`
}

// PlanState is a plan's state.
type PlanState string

const (
	PlanScheduled  PlanState = "scheduled"
	PlanRunning    PlanState = "running"
	PlanPaused     PlanState = "paused"
	PlanCancelled  PlanState = "cancelled"
	PlanMovingBack PlanState = "moving-back"
	PlanDone       PlanState = "done"
	PlanFailed     PlanState = "failed" // ended, and something did not move
)

// Plan is a plan as the record has it.
type Plan struct {
	Spec    PlanSpec     `json:"spec"`
	State   PlanState    `json:"state"`
	By      string       `json:"by,omitempty"`
	Created time.Time    `json:"created"`
	Started time.Time    `json:"started,omitzero"`
	Ended   time.Time    `json:"ended,omitzero"`
	NextRun time.Time    `json:"next_run,omitzero"`
	Items   []PlanResult `json:"items"`
}

// PlanResult is how one item stands.
type PlanResult struct {
	PlanItem
	From      string       `json:"from,omitempty"`
	State     string       `json:"state"` // "waiting", "moving", "moved", "failed", "skipped", "moved-back"
	Migration migration.ID `json:"migration,omitempty"`
	Reason    string       `json:"reason,omitempty"`
}

// DrainRequest empties a host.
type DrainRequest struct {
	Host        string                `json:"host"`
	Deadline    time.Duration         `json:"deadline_ns,omitempty"`
	MaxParallel int                   `json:"max_parallel,omitempty"`
	DryRun      bool                  `json:"dry_run,omitempty"`
	At          time.Time             `json:"at,omitzero"`
	Cron        string                `json:"cron,omitempty"`
	Options     workerapi.MoveOptions `json:"options"`
}

// DrainReport is what a drain will do; Plan is "" for a dry run.
type DrainReport struct {
	Host  string       `json:"host"`
	Plan  string       `json:"plan,omitempty"`
	Items []PlanResult `json:"items"` // state "waiting" with a target in To, or "skipped" with the reason it cannot move
}

// Token lets one machine join once.
type Token struct {
	Token   string    `json:"token"`
	Role    string    `json:"role"` // "worker" or "coordinator"
	Expires time.Time `json:"expires"`
}

// Operator is a person who may use the cluster.
type Operator struct {
	Name string `json:"name"`
	Key  string `json:"key"`  // authorized_keys form
	Role string `json:"role"` // "viewer", "operator", "admin"
}

// Heartbeat is what a worker says about every second.
type Heartbeat struct {
	Facts     workerapi.HostFacts      `json:"facts"`
	Workloads []workload.Status        `json:"workloads"`
	Sessions  []workerapi.SessionState `json:"sessions"`
}

// HeartbeatReply tells a worker what the record expects of it.
type HeartbeatReply struct {
	Epochs map[string]migration.Epoch `json:"epochs"` // by workload that this host owns
	// Bandwidth limits what the host's sources send together, in bytes a second; 0 is no limit.
	Bandwidth int64 `json:"bandwidth,omitempty"`
	// Authorities are the public keys to trust and Signing the one of them that signs, authorized_keys form; none while the cluster
	// has never changed its key.
	Authorities []string `json:"authorities,omitempty"`
	Signing     string   `json:"signing,omitempty"`
	// Forget are workloads of which the host keeps pages in vain: they are not in the record any more, or live there.
	Forget []string `json:"forget,omitempty"`
}

// VerdictReply is what the record says of a migration.
type VerdictReply struct {
	Phase   migration.Phase   `json:"phase"`
	Verdict migration.Verdict `json:"verdict"`
	Epoch   migration.Epoch   `json:"epoch"` // the workload's epoch now
	Owner   string            `json:"owner"`
}

// RenewReply holds a member's new certificates, in the authorized_keys form.
type RenewReply struct {
	HostCert string `json:"host_cert"`
	UserCert string `json:"user_cert"`
}

// JoinRequest asks to become a member.
type JoinRequest struct {
	Token   string `json:"token"`
	Name    string `json:"name"`
	Role    string `json:"role"`
	Address string `json:"address"` // host:port at which the others reach it
	Key     string `json:"key"`     // its public key, authorized_keys form
}

// JoinReply is what a member needs.
type JoinReply struct {
	Cluster      string   `json:"cluster"`
	Authority    string   `json:"authority"`               // the cluster's CA, authorized_keys form; two lines while it changes
	HostCert     string   `json:"host_cert"`               // authorized_keys form
	UserCert     string   `json:"user_cert"`               // authorized_keys form
	Coordinators []string `json:"coordinators"`            // host:port
	AuthorityKey string   `json:"authority_key,omitempty"` // coordinators only: the CA's private key, OpenSSH PEM
	NextKey      string   `json:"next_key,omitempty"`      // and the one that will sign, while it changes
}
