package doctor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// Judge says whether this host can take a tree with that inventory. facts are this host's, here its workloads and their
// states.
func Judge(ctx context.Context, inv workerapi.Inventory, facts workerapi.HostFacts, here map[string]workload.State) ([]workerapi.Finding, error) {
	p, err := survey(ctx, inv, facts, here)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "look whether %s can take workload %s: %w", facts.Name, inv.Workload, err)
	}
	return judgeTarget(inv, p), nil
}

func judgeTarget(inv workerapi.Inventory, p place) []workerapi.Finding {
	f := &findings{host: p.facts.Name}
	judgeName(f, inv, p)
	judgeVersions(f, inv, p)
	judgeCPU(f, inv, p)
	judgeRoom(f, inv, p)
	judgeDirectories(f, inv, p)
	judgeFiles(f, inv, p)
	judgePids(f, inv, p)
	judgeNetwork(f, inv, p)
	judgeUsers(f, inv, p)
	judgeWorker(f, p.caps)
	judgeCapabilities(f, inv, p)
	return f.list
}

func judgeName(f *findings, inv workerapi.Inventory, p place) {
	state, known := p.here[inv.Workload]
	switch {
	case inv.Host == p.facts.Name:
		f.no("name", "choose another target", "%s is on this host already", inv.Workload)
	case known && alive(state):
		f.no("name", "drover rm "+inv.Workload+" --host "+p.facts.Name+", if it is a leftover", "a workload of that name is %s here", state)
	default:
		f.ok("name", "no workload of that name lives here")
	}
}

// neededSince are kernel features that a tree may carry over without knowing, with the version that brought them.
var neededSince = []struct {
	major, minor int
	what         string
}{
	{5, 2, "cgroup v2's freezer, which holds a tree"},
	{5, 13, "restartable sequences that can be restored, which every program with glibc 2.35 or later uses"},
}

func judgeVersions(f *findings, inv workerapi.Inventory, p place) {
	source, target := inv.Engine, p.facts.Engine
	switch {
	case source.Unfit != "":
		f.no("criu", engine.InstallCRIU, "on %s: %s", inv.Host, source.Unfit)
	case target.Unfit != "":
		f.no("criu", engine.InstallCRIU, "%s", target.Unfit)
	case target.Version == "":
		f.no("criu", "install CRIU "+source.Version, "there is no working CRIU here")
	case source.Version != target.Version:
		f.no("criu", "install CRIU "+source.Version+" here, or "+target.Version+" on "+inv.Host, "CRIU %s here, %s on %s: images of one version are not for another",
			target.Version, source.Version, inv.Host)
	default:
		f.ok("criu", "CRIU %s on both", target.Version)
	}
	if !older(target.Kernel, source.Kernel) {
		f.ok("kernel", "Linux %s, not older than the source's %s", target.Kernel, source.Kernel)
		return
	}
	for _, n := range neededSince {
		at := fmt.Sprintf("%d.%d", n.major, n.minor)
		if older(target.Kernel, at) && !older(source.Kernel, at) {
			f.no("kernel", "boot Linux "+at+" or later", "Linux %s here, %s on the source: it lacks %s", target.Kernel, source.Kernel, n.what)
			return
		}
	}
	f.ok("kernel", "Linux %s, older than the source's %s in nothing that is known to matter", target.Kernel, source.Kernel)
}

// older compares the first two numbers of kernel versions such as "6.12.41+deb13-amd64".
func older(a, b string) bool {
	return slices.Compare(release(a), release(b)) < 0
}

func release(version string) []int {
	var major, minor int
	_, _ = fmt.Sscanf(version, "%d.%d", &major, &minor)
	return []int{major, minor}
}

func judgeCPU(f *findings, inv workerapi.Inventory, p place) {
	matter, not := missing(inv.CPU, p.cpu)
	switch {
	case len(matter) > 0:
		f.no("cpu", "choose a target whose processor has them, or start the program with them masked (GLIBC_TUNABLES=glibc.cpu.hwcaps=…)",
			"this processor (%s) lacks %s, which the tree may be using", p.cpu.Model, strings.Join(matter, " "))
	case len(not) > 0:
		f.ok("cpu", "this processor lacks only what a running program does not notice: %s", strings.Join(not, " "))
	default:
		f.ok("cpu", "this processor has all that the source's has")
	}
}

// judgeRoom asks for memory for the tree and disk for what is carried.
func judgeRoom(f *findings, inv workerapi.Inventory, p place) {
	need := workload.MemoryNeed(inv.RSS)
	switch _, disk, ok := p.facts.Room().Split(inv.RSS); {
	case !ok && p.facts.Stores != nil:
		f.no("memory", "free some, raise the target's store_memory, allow or free room for store_spill, or choose another target",
			"%d MiB free, %d MiB of it for stores and %d MiB of a disk; %d MiB needed, %d MiB of it for the store", p.facts.MemoryFree/mebibyte,
			p.facts.Stores.Memory/mebibyte, p.facts.Stores.Spill/mebibyte, need/mebibyte, workload.StoreNeed(inv.RSS)/mebibyte)
	case !ok:
		f.no("memory", "free some, or choose another target", "%d MiB free, %d MiB needed", p.facts.MemoryFree/mebibyte, need/mebibyte)
	case disk > 0:
		f.ok("memory", "%d MiB free, %d MiB needed, %d MiB of it on a disk, encrypted", p.facts.MemoryFree/mebibyte, need/mebibyte, disk/mebibyte)
	default:
		f.ok("memory", "%d MiB free, %d MiB needed", p.facts.MemoryFree/mebibyte, need/mebibyte)
	}
	const reserve = 64 * mebibyte
	if inv.Dirty > 0 && p.facts.DiskFree < inv.Dirty+reserve {
		f.no("disk", "free some, or make the volumes shared", "%d MiB free, %d MiB are carried in volumes", p.facts.DiskFree/mebibyte, inv.Dirty/mebibyte)
	} else {
		f.ok("disk", "%d MiB free, %d MiB are carried in volumes", p.facts.DiskFree/mebibyte, inv.Dirty/mebibyte)
	}
}

func judgeDirectories(f *findings, inv workerapi.Inventory, p place) {
	var gone []string
	for _, dir := range directories(inv.Spec) {
		if !p.dirs[dir] {
			gone = append(gone, dir)
		}
	}
	if len(gone) > 0 {
		f.no("directories", "make them here, as they are on "+inv.Host, "not a directory on this host: %s", some(gone))
	} else if len(p.dirs) > 0 {
		f.ok("directories", "the root and the shared volumes are here")
	}
}

// judgeFiles compares the files the tree has open or mapped. Each that is wrong is a finding of its own, the first few of
// them: who mends one wants to know about the next.
func judgeFiles(f *findings, inv workerapi.Inventory, p place) {
	const most = 20
	bad := 0
	for _, want := range inv.Files {
		have, here := p.files[want.Path]
		why := wrong(want, have, here)
		if why == "" {
			continue
		}
		if bad++; bad <= most {
			f.no("files", mendFile(inv, p, want), "%s %s", want.Path, why)
		}
	}
	switch {
	case bad > most:
		f.no("files", "make the hosts' files equal", "%d more files differ", bad-most)
	case bad == 0:
		f.ok("files", "%d open or mapped files are here and equal in size, mode and build-id", len(inv.Files))
	}
}

// wrong says what CRIU would not accept about a file, "" if nothing.
func wrong(want, have workerapi.File, here bool) string {
	kind := func(mode uint32) uint32 { return mode & unix.S_IFMT }
	switch {
	case !here:
		return "is not here"
	case kind(want.Mode) != kind(have.Mode):
		return "is another kind of file here"
	case kind(want.Mode) != unix.S_IFREG:
		return ""
	case want.Mode != have.Mode:
		return fmt.Sprintf("has mode %04o here, %04o on the source", have.Mode&0o7777, want.Mode&0o7777)
	case want.BuildID != have.BuildID && want.BuildID != "":
		return fmt.Sprintf("differs: build-id %s here, %s on the source", short(have.BuildID), short(want.BuildID))
	case want.Size != have.Size:
		return fmt.Sprintf("has %d bytes here, %d on the source", have.Size, want.Size)
	}
	return ""
}

func mendFile(inv workerapi.Inventory, p place, want workerapi.File) string {
	switch pkg := p.packages[want.Path]; {
	case want.Append:
		return "it is open for writing: put its directory on a volume, which moves with the tree"
	case pkg != "":
		return "install the same version of package " + pkg + " on both hosts"
	}
	return "copy it from " + inv.Host
}

func short(id string) string {
	if id == "" {
		return "none"
	}
	return id[:min(len(id), 12)]
}

func judgePids(f *findings, inv workerapi.Inventory, p place) {
	if inv.OwnPidNS {
		f.ok("pids", "the tree has its own pid namespace")
		return
	}
	var taken []string
	for pid, by := range p.taken {
		taken = append(taken, strconv.Itoa(pid)+" ("+by+")")
	}
	slices.Sort(taken)
	if len(taken) > 0 {
		f.no("pids", "end those processes, choose another target, or start the tree with `drover run`, which gives it its own pids", "taken here: %s", some(taken))
	} else {
		f.ok("pids", "none of the tree's pids is taken here")
	}
}

func judgeNetwork(f *findings, inv workerapi.Inventory, p place) {
	address, has := prefixOf(inv.Spec)
	switch {
	case !has:
	case p.linkErr != "":
		f.no("address", "give this host an address in "+address.Masked().String()+", or name the link with --link", "%s", p.linkErr)
	case p.addrs[address.Addr()]:
		f.no("address", "take it off this host", "%s is this host's own", address.Addr())
	case len(p.holders) > 0:
		f.no("address", "find who has it, and change one of the two", "%s is answered for by %s, which is not %s", address.Addr(), p.holders[0], inv.Host)
	default:
		f.ok("address", "%s can live on %s and nobody else has it", address.Addr(), p.link)
	}
	if inv.OwnNetNS {
		return
	}
	clear := true
	for _, l := range inv.Listeners {
		if i := slices.IndexFunc(p.ports, func(have workerapi.Listener) bool { return clash(l, have) }); i >= 0 {
			clear = false
			f.no("ports", "end what listens there, or give the workload an address of its own", "%s port %d is taken here, on %s", l.Proto, l.Port, p.ports[i].Address)
		}
		if addr, ok := addressNeeded(l); ok && !p.addrs[addr] && addr != address.Addr() {
			clear = false
			f.no("ports", "let it listen on all addresses, or give the workload this one with --address", "it listens on %s, which this host does not have", addr)
		}
	}
	if clear {
		f.ok("ports", "the %d ports of the tree are free here", len(inv.Listeners))
	}
}

func judgeUsers(f *findings, inv workerapi.Inventory, p place) {
	var unknown []string
	for _, proc := range inv.Processes {
		if uid := strconv.Itoa(proc.UID); !p.users[proc.UID] && !slices.Contains(unknown, uid) {
			unknown = append(unknown, uid)
		}
	}
	if len(unknown) > 0 {
		f.ok("users", "no user here has uid %s; the tree runs with it all the same", some(unknown))
	}
}
