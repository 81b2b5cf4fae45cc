package engine

import (
	"context"
	"os"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
)

// Engine checkpoints and restores process trees of this host.
//
// All methods may be called from several goroutines at once, for different trees; two calls for one tree at once are the
// caller's mistake and may fail with ErrBusy. Every method returns once ctx is done; a tree is then never left frozen by the
// engine itself: a dump that did not reach its hold leaves the tree running as it was, a restore that did not reach its hold
// leaves no process. Errors wrap one of this package's sentinels where one fits and are errs.Error values with a next step
// where there is one.
type Engine interface {
	// Probe says what this engine can do on this host. It changes nothing. It may take a second when called first.
	Probe(ctx context.Context) (Features, error)

	// PreDump writes the pages that changed since req.Parent was made (all, without one) and leaves the tree running, always.
	// It needs Features.SoftDirty and fails with ErrNoTracking without it, the tree unharmed.
	PreDump(ctx context.Context, req PreDumpRequest) (Stats, error)

	// Dump freezes the tree, writes its images and returns while the tree is held: everything is written, no thread runs, and
	// the final state has not been applied yet. The tree stays so until the hold is ended, whatever the caller does with ctx.
	Dump(ctx context.Context, req DumpRequest) (Hold, error)

	// Restore rebuilds a tree from images and returns while it is held: it is complete and no instruction of it has run.
	// The tree's processes are in req.Cgroup from their first instant. It stays so until the hold is ended.
	Restore(ctx context.Context, req RestoreRequest) (Hold, error)

	// Kill ends every process of the tree with SIGKILL, frozen and stopped ones too, and returns when none is left. A tree
	// that is already gone is no error.
	Kill(ctx context.Context, t Tree) error

	// Continue lets a tree run that a dump or restore left stopped: sockets left in repair mode are released, the lock of its network
	// removed (others' stay), then every process gets SIGCONT but those in keepStopped (pids as in the
	// tree's own pid namespace), which were stopped before the dump. Continuing a running tree changes nothing.
	Continue(ctx context.Context, t Tree, keepStopped []int) error
}

// Hold is a dump or restore that has done all its work and waits for the verdict. Exactly one of Commit and Abort has an
// effect, whichever is called first; later calls of the same one return the same result, of the other one ErrDecided.
type Hold interface {
	// Pid is the root's pid as this host sees it.
	Pid() int
	// Stats are those known at the hold; Commit's are complete.
	Stats() Stats
	// Commit lets the operation end as it was asked: a dump applies its final state, a restore lets the tree run or leaves it
	// stopped.
	Commit(ctx context.Context) (Stats, error)
	// Abort undoes the operation: a dumped tree runs on as if nothing had happened (processes stopped before the dump stay
	// stopped, connections live), a restored one is killed and no process of it is left.
	Abort(ctx context.Context) error
	// Lost is closed if the engine's process died while it held. A dumped tree is then still frozen by its cgroup, and Abort
	// still brings it back; a restored one has not run, and Abort still removes it; Commit fails with ErrLost.
	Lost() <-chan struct{}
}

// Tree names a tree of this host.
type Tree struct {
	Pid int // of its root, as this host sees it
	// Cgroup is the absolute path of a cgroup v2 directory that holds the tree and nothing else.
	Cgroup string
	// Lock names the lock of its network that a dump has left on a tree that it left stopped, as only that dump knows it; "" if there is none.
	// Continue alone asks for it.
	Lock string `json:",omitempty"`
}

// Features are what an engine can do on this host.
type Features struct {
	Engine    string `json:"engine"`  // "criu" or "fake"
	Version   string `json:"version"` // "4.2.1"
	Path      string `json:"path,omitempty"`
	Kernel    string `json:"kernel"`
	SoftDirty bool   `json:"soft_dirty"` // PreDump works
	WPAsync   bool   `json:"wp_async"`   // userfaultfd asynchronous write protection and PAGEMAP_SCAN work (kernel 6.7 and later)
	LazyPages bool   `json:"lazy_pages"` // dumps and restores may be lazy: CRIU can, and a userfaultfd with what it needs can be made here
	// Missing says what was looked for and not found, each with its consequence, for people.
	Missing []string `json:"missing,omitempty"`
	// Unfit says why no tree can be dumped or restored here, "" if trees can. It names the engine's path, and its version if that is known.
	Unfit string `json:"unfit,omitempty"`
}

// Fit is nil if trees can be dumped and restored here, else an error that says why not and what to do (errs.Unavailable).
func (f Features) Fit() error {
	if f.Unfit == "" {
		return nil
	}
	return errs.New(errs.Unavailable, "%s", f.Unfit).WithNext("%s", InstallCRIU)
}

// InstallCRIU is what to do about an engine that is not fit.
const InstallCRIU = "install CRIU 4.2 or later on this host, or give the worker the path of one (key criu, --criu)"

// Options are the CRIU options a tree needs, found by looking at it (worker/doctor) and the same for dump and restore.
type Options struct {
	TCPEstablished bool   `json:"tcp_established,omitempty"`
	FileLocks      bool   `json:"file_locks,omitempty"`
	LinkRemap      bool   `json:"link_remap,omitempty"`
	ShellJob       bool   `json:"shell_job,omitempty"`
	GhostLimit     uint32 `json:"ghost_limit,omitempty"` // bytes; 0 means CRIU's default of 1 MiB
	// External are CRIU's --external resources: "mnt[/inside]:key", "net[INODE]:key" at a dump; "mnt[key]:/host" at a restore. A tree whose
	// network namespace is external is dumped and restored by an engine that stands in it: no image describes it.
	External []string `json:"external,omitempty"`
	// Root is the tree's root directory on this host, a mount point, for trees with a mount namespace of their own; else "".
	Root string `json:"root,omitempty"`
}

// PreDumpRequest asks for one round by CRIU's own means.
type PreDumpRequest struct {
	Tree    Tree
	Options Options
	// FinalState must be "" or migration.Running; anything else is refused.
	FinalState migration.FinalState
	// Images is an open, empty directory; the engine does not close it.
	Images *os.File
	// Parent is the path of the previous round's directory, absolute or relative to Images, "" for a first round.
	Parent string
	// Pages is where the pages go; see DumpRequest.Pages.
	Pages *os.File
}

// DumpRequest asks for a final dump.
type DumpRequest struct {
	Tree       Tree
	Options    Options
	FinalState migration.FinalState // Running, Stopped or Dead; "" means Dead
	Images     *os.File             // an open, empty directory; the engine does not close it
	Parent     string               // as for PreDumpRequest; "" unless rounds were made by PreDump

	// Pages is a connected stream socket on which the engine speaks CRIU's page-server protocol as the client (image.ServePages
	// is the other end). The engine closes its own copies before Dump returns; the caller closes this one. nil writes the pages
	// into Images.
	Pages *os.File

	// Lazy leaves private anonymous memory out: the images have everything else, and that memory's pagemap entries have
	// image.PELazy without image.PEPresent. Whoever wants it reads it from the held tree (track.OpenStill), whose memory does not
	// change until the verdict. Only a lazy restore takes such images. Pages and Parent must be nil and "" with it
	// (errs.Invalid). It needs Features.LazyPages; without, and of a tree that has too much memory for it, the dump is refused
	// with ErrNotLazy (errs.Refused) before the tree is touched, and may be tried without Lazy.
	Lazy bool

	// AtFreeze is called when the tree is frozen and its network locked, while the engine writes the images; nil is allowed. Dump
	// returns after it has, and ends its ctx if the dump fails. An error from it aborts the dump. It is the place for a last look at the
	// tree, in which executable memory and registers may be the engine's for a moment.
	AtFreeze func(ctx context.Context) error

	Timeout time.Duration // how long the dump may take to its hold; 0 means 60 s
}

// Check says what is contradictory in the request, nil if nothing is.
func (r DumpRequest) Check() error {
	if r.Lazy && (r.Pages != nil || r.Parent != "") {
		return errs.New(errs.Invalid, "dump pid %d: a lazy dump leaves the pages to the caller and takes neither a socket for them nor a parent", r.Tree.Pid)
	}
	return nil
}

// RestoreRequest asks for a tree to be rebuilt.
type RestoreRequest struct {
	Images     *os.File // an open directory with a complete image, or a lazy one with Lazy; the engine does not close it
	Options    Options
	FinalState migration.FinalState // Running or Stopped; "" means Running
	// Cgroup is the absolute path of an empty cgroup v2 directory made for this tree.
	Cgroup string
	// Inherit maps keys of external resources to open descriptors ("net" namespaces: key as in Options.External at the dump). Nothing
	// comes into such a namespace or goes out until the hold ends. The engine does not close them.
	Inherit map[string]*os.File

	// Lazy restores images of a lazy dump. A lazy.Filler must listen in Images before the restore begins (errs.Invalid); it gets
	// a userfaultfd of each process while the tree is rebuilt, answers what the rebuilding touches, and puts the memory in place
	// from the hold on (lazy.Filler.Fill). Commit refuses (errs.Conflict) until the Filler has vouched for the memory: that it has
	// every page and will put each in place. A refused Commit is no verdict. A tree that is released before its memory is in
	// place waits for each page that it asks for. If the Filler dies on the way the tree is killed, before it can
	// see a page of zeros in place of its own. It needs Features.LazyPages; without, the restore is refused with ErrNotLazy
	// (errs.Refused) and nothing is left.
	Lazy bool

	// AtReady is called when all is made that takes no image, the engine's process in the Cgroup first of all, and before any image
	// is looked at; nil is allowed. The images need be there, and complete, only when it returns, and it says whether they are lazy:
	// what stands in Lazy does not count then. An error from it ends the restore and nothing is left. It may take as long as ctx
	// lasts. A restore that is asked for while a tree is still being copied has little left to do in the freeze.
	AtReady func(ctx context.Context) (lazy bool, err error) `json:"-"`

	Timeout time.Duration // how long the restore may take to its hold, from AtReady's return on; 0 means 60 s
}

// Stats are an operation's figures; what is not known is zero.
type Stats struct {
	Freezing     time.Duration `json:"freezing_ns,omitempty"` // from the first thread's stop to the last's
	Frozen       time.Duration `json:"frozen_ns,omitempty"`   // how long the tree has not run, at the hold
	Restore      time.Duration `json:"restore_ns,omitempty"`
	PagesScanned uint64        `json:"pages_scanned,omitempty"`
	PagesWritten uint64        `json:"pages_written,omitempty"`
	PagesParent  uint64        `json:"pages_parent,omitempty"` // skipped because the parent image has them
}
