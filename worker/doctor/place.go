package doctor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/workload"
	workerapi "drover/worker/api"
	"drover/worker/network"
)

// place is what a target has, as far as a certain tree asks for it: plain data for judgeTarget.
type place struct {
	facts    workerapi.HostFacts
	cpu      workerapi.CPU
	here     map[string]workload.State // this host's workloads
	files    map[string]workerapi.File // those of the inventory that are here; BuildID only where it was asked for
	dirs     map[string]bool           // the root and volume directories, whether they are here
	packages map[string]string         // which package brings a file that is wrong here
	taken    map[int]string            // pids that are in use here, by whom
	ports    []workerapi.Listener      // that are listened on here
	addrs    map[netip.Addr]bool       // this host's addresses
	caps     uint64                    // that the worker here may hand on
	users    map[int]bool              // uids of the tree that /etc/passwd knows
	link     string                    // for the address
	linkErr  string                    // why there is none
	holders  []net.HardwareAddr        // who answers for the address
}

// survey gathers what the inventory asks for. Nothing it does changes the host.
func survey(ctx context.Context, inv workerapi.Inventory, facts workerapi.HostFacts, here map[string]workload.State) (place, error) {
	p := place{
		facts: facts, cpu: readCPU(), caps: ownCapabilities(), here: here, files: map[string]workerapi.File{}, dirs: map[string]bool{},
		packages: map[string]string{}, taken: map[int]string{}, addrs: map[netip.Addr]bool{}, users: map[int]bool{},
	}
	if err := p.lookAtFiles(ctx, inv); err != nil {
		return p, err
	}
	if !inv.OwnPidNS {
		p.lookAtPids(inv)
	}
	p.lookAtUsers(inv)
	if !inv.OwnNetNS {
		p.ports = listeningPorts("/proc/thread-self/net")
	}
	if err := p.lookAtAddress(ctx, inv); err != nil {
		return p, err
	}
	return p, ctx.Err()
}

func (p *place) lookAtFiles(ctx context.Context, inv workerapi.Inventory) error {
	for _, dir := range directories(inv.Spec) {
		st, err := os.Stat(dir)
		p.dirs[dir] = err == nil && st.IsDir()
	}
	for _, want := range inv.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := openInside(inv.Spec, want.Path)
		if err != nil {
			continue // judged as missing
		}
		have := lookAtFile(f, want.BuildID != "")
		f.Close()
		have.Path = want.Path
		p.files[want.Path] = have
	}
	p.packages = packagesOf(ctx, inv.Spec.Rootfs, p.wrongFiles(inv))
	return nil
}

// directories are those of the host that a tree is started over and that it must have: a volume that is carried brings its own.
func directories(s workload.Spec) []string {
	var dirs []string
	if s.Rootfs != "" {
		dirs = append(dirs, s.Rootfs)
	}
	for _, v := range s.Volumes {
		if v.Shared {
			dirs = append(dirs, v.Host)
		}
	}
	return dirs
}

// openInside opens a path of the tree, as it will see it on this host, without following links out of its root.
func openInside(s workload.Spec, name string) (*os.File, error) {
	root := cmp.Or(s.Rootfs, "/")
	if v, ok := volumeOf(s, name); ok {
		root, name = v.Host, cmp.Or(strings.TrimPrefix(name, v.Inside), "/")
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path.Join(".", name), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func lookAtFile(f *os.File, withBuildID bool) (have workerapi.File) {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return have
	}
	have.Mode = st.Mode
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		have.Size = st.Size
		if withBuildID {
			have.BuildID = readBuildID("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		}
	}
	return have
}

// lookAtPids finds which of the tree's pids are taken. Threads have pids too, on both hosts.
func (p *place) lookAtPids(inv workerapi.Inventory) {
	for _, proc := range inv.Processes {
		for _, pid := range append([]int{proc.Pid}, proc.TIDs...) {
			if b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm"); err == nil {
				p.taken[pid] = strings.TrimSpace(string(b))
			}
		}
	}
}

func (p *place) lookAtUsers(inv workerapi.Inventory) {
	b, err := os.ReadFile(filepath.Join(cmp.Or(inv.Spec.Rootfs, "/"), "etc/passwd"))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 {
			if uid, err := strconv.Atoi(f[2]); err == nil {
				p.users[uid] = true
			}
		}
	}
}

// lookAtAddress finds the link for the tree's address and asks its network who has the address.
func (p *place) lookAtAddress(ctx context.Context, inv workerapi.Inventory) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return errs.New(errs.Failed, "list this host's addresses: %w", err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			p.addrs[prefix.Addr().Unmap()] = true
		}
	}
	address, ok := prefixOf(inv.Spec)
	if !ok {
		return nil
	}
	if p.link, err = network.LinkFor(inv.Spec.Link, address); err != nil {
		p.linkErr = err.Error()
		return nil //nolint:nilerr // it is a finding, not a failure of the looking
	}
	const answersTake = 200 * time.Millisecond
	holders, err := network.WhoHas(ctx, p.link, address.Addr(), answersTake)
	if errs.KindOf(err) == errs.Refused {
		p.linkErr = err.Error()
		return nil
	}
	for _, h := range holders {
		if !bytes.Equal(h, parseMAC(inv.MAC)) {
			p.holders = append(p.holders, h)
		}
	}
	return err
}

func parseMAC(s string) net.HardwareAddr {
	mac, _ := net.ParseMAC(s)
	return mac
}

// prefixOf is the workload's address; ok is false if it has none.
func prefixOf(s workload.Spec) (address netip.Prefix, ok bool) {
	address, err := netip.ParsePrefix(s.Address)
	return address, err == nil
}
