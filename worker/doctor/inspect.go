package doctor

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
	"drover/worker/cgroup"
	"drover/worker/network"
)

// Bounds of an inventory: it goes over the wire and a hostile tree must not make it endless.
const (
	maxProcesses = 4096
	maxFiles     = 10_000
	maxListeners = 10_000
)

// look is one look at a tree.
type look struct {
	spec  workload.Spec
	inv   workerapi.Inventory
	seen  seen
	procs []process
	in    map[int]bool // pids of the tree, as this host sees them

	files      map[string]workerapi.File
	sockets    map[string]heldSocket // by "socket:[inode]"
	pipes      map[string]pipeEnds
	peers      map[string]owner // the other ends of the tree's unix sockets, not in the tree: "socket:[inode]"
	masters    map[string]bool  // pseudo-terminals whose master the tree has: "/dev/pts/N"
	ptys       map[string]owner
	deletedIno map[inode]bool
	identified map[inode]string // build-ids
}

// Inspect looks at a tree on this host and says what a host must have to take it. facts are this host's. Processes that end
// and files that close meanwhile are left out; engine.ErrGone if the root ends.
func Inspect(ctx context.Context, t engine.Tree, spec workload.Spec, epoch migration.Epoch, facts workerapi.HostFacts) (workerapi.Inventory, error) {
	l := &look{
		spec: spec, in: map[int]bool{}, files: map[string]workerapi.File{}, sockets: map[string]heldSocket{},
		pipes: map[string]pipeEnds{}, peers: map[string]owner{}, masters: map[string]bool{}, ptys: map[string]owner{},
		deletedIno: map[inode]bool{}, identified: map[inode]string{},
	}
	l.inv = workerapi.Inventory{Workload: spec.Name, Host: facts.Name, Spec: spec, Epoch: epoch, Engine: facts.Engine, CPU: readCPU()}
	if err := l.run(ctx, t); err != nil {
		return workerapi.Inventory{}, errs.New(errs.KindOf(err), "look at workload %s (pid %d): %w", spec.Name, t.Pid, err)
	}
	l.seen.caps = ownCapabilities()
	opts, findings := judgeSource(l.inv, l.seen)
	l.inv.Options, l.inv.Findings = opts, findings
	return l.inv, nil
}

func (l *look) run(ctx context.Context, t engine.Tree) error {
	var err error
	if l.procs, err = treeOf(t.Pid); err != nil {
		return err
	}
	if len(l.procs) == 0 {
		return errs.New(errs.NotFound, "%w", engine.ErrGone)
	}
	for _, p := range l.procs {
		l.in[p.pid] = true
	}
	l.namespaces(t.Pid)
	for i := range l.procs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.process(&l.procs[i]); isGone(err) && l.procs[i].pid != t.Pid {
			continue
		} else if isGone(err) {
			return errs.New(errs.NotFound, "%w: %w", engine.ErrGone, err)
		} else if err != nil {
			return err
		}
	}
	l.strays(t)
	l.address()
	if err := l.lookAtSockets(ctx); err != nil {
		return err
	}
	l.lookAtOtherEnds()
	l.lookAtTerminals()
	l.inv.Dirty, err = carriedBytes(ctx, l.spec)
	if err != nil {
		return err
	}
	for _, f := range l.files {
		l.inv.Files = append(l.inv.Files, f)
	}
	slices.SortFunc(l.inv.Files, func(a, b workerapi.File) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// namespaces says which namespaces of the root are its own, not the worker's.
func (l *look) namespaces(root int) {
	pid := strconv.Itoa(root)
	// Not "self": that is the first thread, which somebody may have left in another namespace.
	own := func(kind string) bool { return namespace(pid, kind) != namespace("thread-self", kind) }
	l.inv.OwnPidNS, l.inv.OwnNetNS, l.inv.OwnIPCNS, l.inv.OwnMountNS = own("pid"), own("net"), own("ipc"), own("mnt")
	for _, p := range l.procs[1:] {
		for _, kind := range []string{"pid", "user"} {
			if ns := namespace(strconv.Itoa(p.pid), kind); ns != 0 && ns != namespace(pid, kind) {
				l.seen.nested = append(l.seen.nested, owner{p.pid, p.comm, kind})
			}
		}
	}
}

// address notes which MAC answers for the workload's address here, so that the target can tell it from another's.
func (l *look) address() {
	ns := ""
	if l.inv.OwnNetNS {
		ns = proc(l.procs[0].pid, "ns/net")
	}
	if a, ok := prefixOf(l.spec); ok {
		l.inv.MAC = network.HolderMAC(ns, a.Addr()).String()
	}
}

// process looks at one process: itself, its descriptors, its mappings.
func (l *look) process(p *process) error {
	if p.kernel {
		l.seen.kernelThread = true
		return nil
	}
	if err := p.complete(); err != nil {
		return err
	}
	if len(l.inv.Processes) >= maxProcesses {
		l.inv.Truncated = true
		return nil
	}
	l.inv.Processes = append(l.inv.Processes, workerapi.Process{
		Pid: p.inside, Host: p.pid, TIDs: p.tids, UID: p.uid, State: p.state, Comm: p.comm, Caps: p.caps, Bounds: p.bounds,
	})
	l.inv.RSS += p.rss
	if p.state == "T" {
		l.inv.StoppedPids = append(l.inv.StoppedPids, p.inside)
	}
	if p.tracer != 0 {
		l.seen.traced = append(l.seen.traced, p.has("process "+strconv.Itoa(p.tracer)))
	}
	switch {
	case p.sessionInside == 0:
		l.seen.leadOutside = append(l.seen.leadOutside, p.has(""))
	case !l.in[p.session]:
		l.seen.foreignLead = true
	}
	if p.state == "Z" {
		return nil
	}
	if err := l.descriptors(p); err != nil {
		return err
	}
	if err := l.mappings(p); err != nil {
		return err
	}
	l.workingDirectory(p)
	return nil
}

func (p *process) has(what string) owner { return owner{p.inside, p.comm, what} }

// strays are processes of the tree's cgroup that are no descendants of its root: they would stay behind, and be killed.
func (l *look) strays(t engine.Tree) {
	if t.Cgroup == "" {
		return
	}
	pids, _ := cgroup.Group(t.Cgroup).Pids()
	now, err := treeOf(t.Pid) // it may have grown since
	if err != nil {
		return
	}
	for _, p := range now {
		l.in[p.pid] = true
	}
	for _, pid := range pids {
		if pid != 0 && !l.in[pid] && isProcess(pid) {
			l.seen.strays = append(l.seen.strays, owner{pid, commOf(pid), ""})
		}
	}
}
