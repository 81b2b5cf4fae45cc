// Package api is what a worker answers to: the Worker interface with its contract, its types, and an HTTP client and handler
// for it that run over an SSH channel. It is the only package of the worker that the coordinator imports.
package api

import (
	"context"
	"io"
	"time"

	"drover/engine"
	"drover/engine/track"
	"drover/internal/migration"
	"drover/internal/workload"
)

// Worker is one host's agent. Every call is idempotent: repeating one that succeeded succeeds and changes nothing. Errors
// are errs.Error values, on both sides of the wire. A call that carries an epoch older than the newest the worker has seen
// for that workload is refused with errs.Conflict.
type Worker interface {
	// Host is what this host says of itself, Workloads of the trees that are here. Both are told with each heartbeat, too.
	Host(ctx context.Context) (HostFacts, error)
	Workloads(ctx context.Context) ([]workload.Status, error)

	// Start starts or adopts spec's tree and returns when it runs.
	Start(ctx context.Context, spec workload.Spec, epoch migration.Epoch) (workload.Status, error)
	// Stop ends the tree: signal (0: SIGTERM), then SIGKILL after grace (0: 10 s). The workload stays listed as exited.
	Stop(ctx context.Context, name string, signal int, grace time.Duration) (workload.Status, error)
	// Remove forgets an exited workload and its files; force stops it first.
	Remove(ctx context.Context, name string, force bool) error
	// RemoveCopy forgets what is here of a workload that another host owns at epoch: a fenced tree, one that has ended, or one of
	// an older epoch, which is killed if it runs. The workload itself is errs.Conflict.
	RemoveCopy(ctx context.Context, name string, epoch migration.Epoch) error
	// Continue lets a stopped tree run. epoch is the workload's, which this host owns: a fenced tree, whose workload moved away,
	// is refused (errs.Refused) unless that epoch is newer than the one it was left at.
	Continue(ctx context.Context, name string, epoch migration.Epoch) (workload.Status, error)
	// Logs copies the workload's output to w; with follow until ctx is done or the tree has exited.
	Logs(ctx context.Context, name string, opts LogOptions, w io.Writer) error

	// Checkpoint writes a complete image of the tree into dir on this host (absolute; made 0700, must not exist or be empty).
	Checkpoint(ctx context.Context, name, dir string, final migration.FinalState) (CheckpointReport, error)
	// Restore brings a workload back from such a directory; a workload of that name must not be alive here.
	Restore(ctx context.Context, name, dir string, final migration.FinalState, epoch migration.Epoch) (workload.Status, error)

	// Inspect looks at a workload and says what a host must have to take it. It changes nothing.
	Inspect(ctx context.Context, name string) (Inventory, error)
	// Judge says whether this host can take a tree with that inventory. It changes nothing and looks at files, pids, ports,
	// CPU features, memory and versions.
	Judge(ctx context.Context, inv Inventory) ([]Finding, error)

	// Open opens this host's session of a migration, Source or Target, and returns when it is ready: a target has reserved
	// what it needs, a source begins its rounds. It is the only call that begins anything.
	Open(ctx context.Context, req OpenRequest) (SessionState, error)
	// Session is the state of a session, errs.NotFound if this worker has none of that id.
	Session(ctx context.Context, id migration.ID) (SessionState, error)
	// Watch calls f with every event of a session after sequence number after, until the session has ended, ctx is done or f
	// fails. Events are kept while the session lives, progress ones only the newest.
	Watch(ctx context.Context, id migration.ID, after uint64, f func(Event) error) error
	// CutOver lets a source that said StepReady freeze its tree.
	CutOver(ctx context.Context, id migration.ID, epoch migration.Epoch) error
	// Decide delivers the verdict and returns when it has been acted on. Commit on a target: the tree is released and the
	// answer carries when. Commit on a source: noted; the tree stays held for probation. Abort and Reclaim: undone. The epoch
	// is the one the verdict brings: e for Abort, e+1 for Commit, e+2 for Reclaim.
	Decide(ctx context.Context, id migration.ID, v migration.Verdict, epoch migration.Epoch) (SessionState, error)
	// Confirm ends a committed session: a source's tree gets its final state, a target drops its images. Only then may a
	// source be dead.
	Confirm(ctx context.Context, id migration.ID, epoch migration.Epoch) (SessionState, error)
	// SetBandwidth limits what a source sends, in bytes a second on the wire; 0 is no limit. It takes effect at once.
	SetBandwidth(ctx context.Context, id migration.ID, bytesPerSecond int64) error
}

// HostFacts are what a host says of itself.
type HostFacts struct {
	Name        string          `json:"name"`
	Address     string          `json:"address"` // host:port of its worker
	Version     string          `json:"version"` // drover's
	Engine      engine.Features `json:"engine"`
	Boot        string          `json:"boot"` // boot id: another one means that every tree is gone
	CPUs        int             `json:"cpus"`
	MemoryTotal int64           `json:"memory_total"` // bytes
	MemoryFree  int64           `json:"memory_free"`  // bytes available, less what sessions have reserved
	Stores      *Stores         `json:"stores,omitempty"`
	Kept        []Kept          `json:"kept,omitempty"` // by workload
	DiskFree    int64           `json:"disk_free"`      // bytes, of the state directory
	Load1       float64         `json:"load1"`
	Started     time.Time       `json:"started"` // of the worker
	// CertificateUntil is when the worker's certificates run out unless it renews them before.
	CertificateUntil time.Time `json:"certificate_until,omitzero"`
	// Trusts and SignedBy are fingerprints: the authorities that the worker trusts, and the one that signed its certificates.
	Trusts   []string `json:"trusts,omitempty"`
	SignedBy string   `json:"signed_by,omitempty"`
}

// Stores are what a host has free for stores, where that is not simply what memory is free.
type Stores struct {
	Limit  int64 `json:"limit,omitempty"` // bytes of memory that all may take together; 0 is all there is
	Memory int64 `json:"memory"`          // bytes of memory that are left
	Spill  int64 `json:"spill,omitempty"` // bytes of a disk, for what has no room there
}

// Kept are pages that a host keeps of a workload that was there or began to come, for when it comes again: they need not be sent
// then. Their memory counts as free.
type Kept struct {
	Workload string          `json:"workload"`
	Epoch    migration.Epoch `json:"epoch"`
	Bytes    int64           `json:"bytes"` // of memory
	Until    time.Time       `json:"until"` // if nothing else needs it before
}

// Room is what the host has free for trees that come.
func (f HostFacts) Room() workload.Room {
	r := workload.Room{Memory: f.MemoryFree, Store: f.MemoryFree}
	if f.Stores != nil {
		r.Store, r.Spill = f.Stores.Memory, f.Stores.Spill
	}
	return r
}

// LogOptions choose what Logs copies.
type LogOptions struct {
	Stream string `json:"stream"` // "stdout", "stderr" or "" for both
	Tail   int    `json:"tail"`   // last lines only; 0 is all
	Follow bool   `json:"follow"`
}

// CheckpointReport says what a checkpoint made.
type CheckpointReport struct {
	Dir    string               `json:"dir"`
	Bytes  int64                `json:"bytes"`
	Final  migration.FinalState `json:"final_state"`
	Stats  engine.Stats         `json:"stats"`
	Digest string               `json:"digest"` // of the manifest, hex SHA-256; Restore refuses a directory that does not match its own
}

// OpenRequest opens a session.
type OpenRequest struct {
	Migration migration.ID    `json:"migration"`
	Role      migration.Role  `json:"role"`
	Epoch     migration.Epoch `json:"epoch"` // the workload's epoch now
	Spec      workload.Spec   `json:"spec"`
	Source    Peer            `json:"source"`
	Target    Peer            `json:"target"`
	Inventory Inventory       `json:"inventory"`
	Options   MoveOptions     `json:"options"`
	Permit    string          `json:"permit,omitempty"`  // for a source: the transfer's certificate (pki.Transfer), authorized_keys form
	Past      []PastMove      `json:"past,omitempty"`    // the newest first, at most 16
	DryRun    bool            `json:"dry_run,omitempty"` // two rounds and a forecast; never freezes, and can only be aborted
	// HostLimit is what all sources of the source's host may send together, in bytes a second, 0 for no limit: so that it holds from the first
	// byte on, whenever the host last heard of it. nil says nothing of it.
	HostLimit *int64 `json:"host_limit,omitempty"`
	// Boot is the host's boot id as the migration's record has it, "" if nobody knew it. A host that has booted since refuses: what is
	// opened there later would pass for what that restart has ended.
	Boot string `json:"boot,omitempty"`
}

// Peer is a worker as the other one reaches it.
type Peer struct {
	Host    string `json:"host"`
	Address string `json:"address"`
}

// Step is how far a session has come.
type Step string

const (
	StepOpen     Step = "open"            // ready; a source's rounds run
	StepReady    Step = "ready-to-freeze" // source: rounds have done what they can, asks for CutOver; rounds go on meanwhile
	StepFrozen   Step = "frozen"          // source: the tree is held
	StepStaged   Step = "staged"          // target: all is there, digests equal; source: has sent it and heard so
	StepHeld     Step = "held"            // target: rebuilt, waits
	StepReleased Step = "released"        // target: runs or is stopped as asked
	StepDone     Step = "done"            // confirmed
	StepUndone   Step = "undone"          // aborted or reclaimed, and undone
	StepFailed   Step = "failed"          // cannot go on and waits for Abort (before the verdict) or Reclaim (target after it)
)

// SessionState is what a worker says of one session.
type SessionState struct {
	Migration migration.ID      `json:"migration"`
	Workload  string            `json:"workload"`
	Role      migration.Role    `json:"role"`
	Epoch     migration.Epoch   `json:"epoch"`
	Step      Step              `json:"step"`
	Verdict   migration.Verdict `json:"verdict,omitempty"`
	DryRun    bool              `json:"dry_run,omitempty"` // the record does not know it
	Error     string            `json:"error,omitempty"`   // step failed: why
	Next      string            `json:"next,omitempty"`    // step failed: what to do
	Kind      string            `json:"kind,omitempty"`    // step failed: errs.Kind's name
	Digest    string            `json:"digest,omitempty"`
	Progress  Progress          `json:"progress"`
	FrozenAt  time.Time         `json:"frozen_at,omitzero"`      // source's clock
	FrozenFor time.Duration     `json:"frozen_for_ns,omitempty"` // how long the source's tree has not run, measured on the source
	// SendsNoMore is true on a source whose worker was restarted while its tree was held: what the target does not have, it will not get.
	SendsNoMore bool `json:"sends_no_more,omitempty"`
	// ReleasedAt is when a target's tree could run its first instruction, by the target's clock; zero after a restart of its worker.
	ReleasedAt time.Time `json:"released_at,omitzero"`
	// Alive says of a released target: its root still runs. ExitSignal is the signal that ended it, 0 if none.
	Alive      bool `json:"alive,omitempty"`
	ExitSignal int  `json:"exit_signal,omitempty"`
	// NeverRan is true on a target whose tree has not executed an instruction and never will.
	NeverRan bool `json:"never_ran,omitempty"`
	// Filling says of a target how much of the tree's memory is in place, nil when all of it is. Until then its source may not be
	// confirmed.
	Filling *Filling `json:"filling,omitempty"`
}

// Filling is how much of a tree's private memory is in place, in bytes.
type Filling struct {
	Done uint64 `json:"done"`
	All  uint64 `json:"all"`
}

// Progress is a source's view of its rounds.
type Progress struct {
	Tracker     string `json:"tracker,omitempty"`
	Compression string `json:"compression,omitempty"`
	Round       int    `json:"round"` // from 1; 0 before the first
	PagesTotal  uint64 `json:"pages_total"`
	PagesSent   uint64 `json:"pages_sent"` // over all rounds
	PagesLeft   uint64 `json:"pages_left"` // of this round, an estimate
	// PagesKept are those that the target had from an earlier visit when it began, PagesFound those of them that the tree still has, or
	// has again: they need not be sent.
	PagesKept     uint64        `json:"pages_kept,omitempty"`
	PagesFound    uint64        `json:"pages_found,omitempty"`
	WireBytes     uint64        `json:"wire_bytes"`
	Rate          float64       `json:"rate"`                // bytes a second on the wire, of late
	DirtyRate     float64       `json:"dirty_rate"`          // pages a second
	BlackoutGuess time.Duration `json:"blackout_guess_ns"`   // if it cut over now
	Bandwidth     int64         `json:"bandwidth,omitempty"` // the migration's own limit, bytes a second; 0 is none
	Limit         int64         `json:"limit,omitempty"`     // what it may send now, by that and by its host's limit; 0 is no limit
	Throttle      int           `json:"throttle,omitempty"`  // percent of its time that is taken from the tree now
	// Note is why it cuts over although the blackout will be longer than asked for, for people; "" if it will not be.
	Note     string        `json:"note,omitempty"`
	TimeLeft time.Duration `json:"time_left_ns"`
	Rounds   []Round       `json:"rounds,omitempty"`
	Expected Expected      `json:"expected,omitzero"`  // of what BlackoutGuess is made
	Forecast *Forecast     `json:"forecast,omitempty"` // of a dry run that has come to its end
}

// Expected are the parts of a predicted blackout, before past moves have corrected them.
type Expected struct {
	Way  string        `json:"way"`     // that the memory goes
	Own  time.Duration `json:"own_ns"`  // freezing, dumping, rebuilding: what the link has nothing to do with
	Link time.Duration `json:"link_ns"` // sending what is dirty
}

// PastMove is what a move over the same hosts has taken.
type PastMove struct {
	Way  string        `json:"way"`
	Own  time.Duration `json:"own_ns"`  // as Expected's
	Took time.Duration `json:"took_ns"` // what that part came to
}

// Ends of a forecast.
const (
	EndsWithin   = "within-budget"
	EndsOver     = "over-budget"
	EndsGivingUp = "gives-up"
)

// Forecast is what a migration would come to if the tree and the link went on as two real rounds have found them.
type Forecast struct {
	Ends      string        `json:"ends"`
	Blackout  time.Duration `json:"blackout_ns"`        // with which it would cut over, or give up
	Rounds    int           `json:"rounds"`             // in all
	Took      time.Duration `json:"took_ns"`            // up to the freeze
	WireBytes uint64        `json:"wire_bytes"`         // in all
	DirtyRate float64       `json:"dirty_rate"`         // pages a second
	Rate      float64       `json:"rate"`               // bytes a second on the wire
	Throttle  int           `json:"throttle,omitempty"` // percent of its time that would be taken from the tree in the end
}

// Round is the report of one finished round; Final marks the pass in the freeze.
type Round struct {
	N          int              `json:"n"`
	Final      bool             `json:"final,omitempty"`
	Track      track.RoundStats `json:"track"`
	PagesSent  uint64           `json:"pages_sent"`
	PagesFound uint64           `json:"pages_found,omitempty"` // there from an earlier visit
	WireBytes  uint64           `json:"wire_bytes"`
	Took       time.Duration    `json:"took_ns"`
}

// Event is something that happened in a session.
type Event struct {
	Seq   uint64       `json:"seq"` // from 1, without gaps but for dropped progress
	Time  time.Time    `json:"time"`
	Host  string       `json:"host"`
	State SessionState `json:"state"`
	Note  string       `json:"note,omitempty"` // for people
}

// Verdict words of the doctor.
const (
	Go         = "GO"
	GoWithFlag = "GO-WITH-FLAG" // drover sets the flag itself; said so that it can be known
	NoGo       = "NO-GO"
)

// Finding is one thing the doctor looked at.
type Finding struct {
	Check   string `json:"check"` // "cpu", "files", "pids", …
	Host    string `json:"host"`
	Verdict string `json:"verdict"`
	Detail  string `json:"detail"`
	Flag    string `json:"flag,omitempty"` // with GO-WITH-FLAG
	Mend    string `json:"mend,omitempty"` // with NO-GO: how
}

// Inventory is what a tree has and a target must offer. All lists are bounded (10,000 files, 4,096 processes) and Truncated
// says when one was cut.
type Inventory struct {
	Workload   string          `json:"workload"`
	Host       string          `json:"host"`
	Spec       workload.Spec   `json:"spec"`
	Epoch      migration.Epoch `json:"epoch"`
	Engine     engine.Features `json:"engine"`
	CPU        CPU             `json:"cpu"`
	Processes  []Process       `json:"processes"`
	Files      []File          `json:"files"`     // open or mapped, outside volumes that are carried
	Listeners  []Listener      `json:"listeners"` // with the host's network only
	OwnPidNS   bool            `json:"own_pid_ns"`
	OwnNetNS   bool            `json:"own_net_ns"`
	OwnIPCNS   bool            `json:"own_ipc_ns"`
	OwnMountNS bool            `json:"own_mount_ns"`
	MAC        string          `json:"mac,omitempty"` // that answers for the workload's address now
	RSS        int64           `json:"rss"`           // bytes
	Dirty      int64           `json:"dirty"`         // bytes carried in volumes
	Options    engine.Options  `json:"options"`
	Findings   []Finding       `json:"findings"` // of the source's own look: io_uring, userfaultfd, MPTCP, terminals, …
	Truncated  bool            `json:"truncated,omitempty"`
	// StoppedPids are those stopped by a signal before anything began, in the tree's own pid namespace.
	StoppedPids []int `json:"stopped_pids,omitempty"`
}

// CPU is what a host's processor offers.
type CPU struct {
	Vendor   string   `json:"vendor"`
	Model    string   `json:"model"`
	Features []string `json:"features"` // /proc/cpuinfo's flags, sorted
}

// Process is one process of a tree.
type Process struct {
	Pid    int    `json:"pid"`  // in the tree's pid namespace
	Host   int    `json:"host"` // its pid as the host sees it
	TIDs   []int  `json:"tids"` // in the tree's pid namespace
	UID    int    `json:"uid"`
	State  string `json:"state"` // /proc/PID/stat's letter
	Comm   string `json:"comm"`
	Caps   uint64 `json:"caps,omitempty"`   // permitted capabilities, by bit (capabilities(7))
	Bounds uint64 `json:"bounds,omitempty"` // its bounding set, likewise: what it may gain
}

// File is one file a tree has open or mapped.
type File struct {
	Path    string `json:"path"` // as the tree sees it
	Size    int64  `json:"size"`
	Mode    uint32 `json:"mode"`
	BuildID string `json:"build_id,omitempty"` // hex, mapped ELF files
	Mapped  bool   `json:"mapped,omitempty"`
	Append  bool   `json:"append,omitempty"` // open for writing
}

// Listener is a port a tree listens on.
type Listener struct {
	Proto   string `json:"proto"` // tcp, tcp6, udp, udp6, mptcp
	Address string `json:"address"`
	Port    int    `json:"port"`
}
