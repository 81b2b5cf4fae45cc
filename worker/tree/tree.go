// Package tree is the seam between the worker's sessions and the trees on its host: what a session needs of the keeper, the
// cgroup, the namespaces and the address of one workload, as two small interfaces. worker/workloads implements them for real,
// sessiontest as a model.
package tree

import (
	"context"
	"io"
	"time"

	"drover/engine"
	"drover/engine/lazy"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

// Host gives a session access to the workloads of this host.
type Host interface {
	// Lend gives the tree of a workload that runs here to a migration; until it is given back the workload's state is
	// "migrating" and no other migration, stop or checkpoint may touch it (errs.Conflict).
	Lend(ctx context.Context, name string, epoch migration.Epoch, id migration.ID) (Lent, error)
	// Reserve makes the place a tree will be restored into: keeper, cgroup, network namespace with the workload's address
	// behind a fence, root and mounts, log files. Reserving twice for one migration returns the same shell.
	Reserve(ctx context.Context, inv workerapi.Inventory, epoch migration.Epoch, id migration.ID) (Shell, error)
	// Find returns what a migration was lent or reserved before this worker started, from what the keeper still holds.
	// Either may be nil; errs.NotFound if both are.
	Find(ctx context.Context, id migration.ID) (Lent, Shell, error)
}

// Lent is a source's tree for the time of a migration.
type Lent interface {
	Tree() engine.Tree
	Engine() engine.Engine // drives CRIU in the workload's keeper: its holds outlive this process
	Options() engine.Options
	// Hold is the hold a keeper still has from before this worker started, nil if there is none.
	Hold() engine.Hold
	// Freeze writes 1 to the tree's cgroup.freeze and waits until it is frozen; Thaw is the opposite. Idempotent.
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	// Throttle prepares to take time from the tree, which runs: cgroup.NewThrottle with its contract. Unthrottle undoes what one
	// has left whose process died, but for the freezing: that Thaw undoes.
	Throttle() (Throttle, error)
	Unthrottle(before string) error
	// Fence hides the tree's address from the network (packets and ARP, both ways) without touching its sockets; Unfence
	// shows it again and announces it. Idempotent, nothing to do without an address.
	Fence(ctx context.Context) error
	Unfence(ctx context.Context) error
	// Carry streams what is to be carried of the tree's files (private volumes, output) that changed since the last call for
	// this migration. f gets each file in turn, with a path relative to its volume; volume -1 is the output directory.
	Carry(ctx context.Context, f func(CarriedFile, io.Reader) error) error
	// Memory opens the tree's private memory for reading while it stands still, held by a dump that left it out
	// (engine.DumpRequest.Lazy). The caller closes it.
	Memory() (Memory, error)
	// Return gives the tree back unharmed: the workload runs on here at its old or a reclaimed epoch.
	Return(ctx context.Context, epoch migration.Epoch) error
	// Leave ends the workload here: it lives elsewhere. final is Dead (everything of it is removed) or Stopped (kept fenced).
	Leave(ctx context.Context, final migration.FinalState) error
}

// Throttle is cgroup.Throttle.
type Throttle interface {
	Before() string
	How() string
	Set(percent int) error
	End(ctx context.Context) error
}

// Filling is how far a tree's memory has been filled in.
type Filling struct {
	Done, All uint64        // bytes; All is 0 until the restore is held
	Over      bool          // every page is in place
	Took      time.Duration // to put all in place, once it is over
	// Beats rises several times a second, unless pages of a tree that runs are missing and none comes to its place; 0: it is not known.
	Beats uint64
}

// Memory is the private memory of a tree's processes. It is used by one goroutine.
type Memory interface {
	// Read fills buf, a number of whole pages, with what the process with that pid (in the tree's own pid namespace) has at addr.
	Read(pid, addr uint64, buf []byte) error
	Close() error
}

// CarriedFile describes a file, directory or link that moves with a tree.
type CarriedFile struct {
	Volume  int    `json:"volume"` // index in Spec.Volumes, -1 for the output directory
	Path    string `json:"path"`
	Mode    uint32 `json:"mode"` // st_mode, type bits included
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
	Size    int64  `json:"size"`
	Mtime   int64  `json:"mtime"` // ns since 1970
	Link    string `json:"link,omitempty"`
	Deleted bool   `json:"deleted,omitempty"` // is no longer there
}

// Shell is a target's place for a tree.
type Shell interface {
	Cgroup() string
	Engine() engine.Engine
	Options() engine.Options    // for the restore: external mounts and namespaces mapped to this host's
	Hold() engine.Hold          // as Lent.Hold
	Inherit() map[string]string // key → path of a namespace file, for RestoreRequest.Inherit
	Images() string             // a directory in memory (tmpfs), 0700, this migration's own
	// Fills says whether this host can fill in the memory of a tree that was restored without it (engine.RestoreRequest.Lazy);
	// errs.Unavailable says why it cannot.
	Fills(ctx context.Context) error
	// Fill begins to wait for such a restore from Images: the memory's files are read when it begins, and stay the caller's. What fills
	// outlives this process, and goes on once the restore has begun until every page is in place. letGo is to be called when the restore
	// is held or will not be.
	// eager fills all before the tree is released (lazy.Config.Eager).
	Fill(ctx context.Context, memory lazy.Files, eager bool) (letGo func(), err error)
	// Filling says how far it is, for this process or one before it. errs.Failed says that it has ended before all was in place: a tree
	// that was released is dead or has to be killed. errs.NotFound says that there is nothing that fills, and other errors nothing.
	Filling() (Filling, error)
	// Receive writes one carried file. The path never leaves its volume.
	Receive(ctx context.Context, f CarriedFile, data io.Reader) error
	// Accept makes the released tree the workload here, at the new epoch: the fence is lifted and the address announced.
	// pid is the root's. stopped says that it was released stopped.
	Accept(ctx context.Context, pid int, epoch migration.Epoch, stopped bool) error
	// Alive says whether the accepted tree's root still runs, and if not what signal or code ended it.
	Alive() (alive bool, code, signal int)
	// Discard removes the shell with whatever is in it: kills the cgroup, removes namespace, fence, mounts and files.
	Discard(ctx context.Context) error
}
