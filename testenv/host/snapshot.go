package host

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Snapshot is what exists on a bed's hosts that a careless program could leave behind: one line a thing, such as
// "alpha: process 1203 redis-server" or "beta: address 10.77.0.50/24 on eth0".
type Snapshot map[string]bool

// filesWatched are the folders whose files a snapshot lists by path.
var filesWatched = []string{"/run", "/var/lib", "/var/tmp", "/tmp", "/dev/shm", "/dev/net", "/root"}

// Snapshot looks at every host that is up: processes with the number of their descriptors, cgroups, mounts, network namespaces
// with their links, addresses and routes, nftables rules, files of filesWatched.
func (b *Bed) Snapshot(ctx context.Context) (Snapshot, error) {
	s := Snapshot{}
	for _, h := range b.Hosts() {
		if !h.Up() {
			continue
		}
		for _, look := range []func(context.Context, func(format string, args ...any)) error{
			h.seeProcesses, h.seeCgroups, h.seeMounts, h.seeNetwork, h.seeRules, h.seeFiles,
		} {
			see := func(format string, args ...any) { s[h.Name+": "+fmt.Sprintf(format, args...)] = true }
			if err := look(ctx, see); err != nil {
				return nil, errs.New(errs.Failed, "snapshot of host %s: %w", h.Name, err)
			}
		}
	}
	return s, nil
}

// Diff lists, sorted, what has appeared since the earlier snapshot ("+ alpha: …") and what is gone ("- alpha: …").
func (s Snapshot) Diff(earlier Snapshot) []string {
	var diff []string
	for _, thing := range slices.Sorted(maps.Keys(s)) {
		if !earlier[thing] {
			diff = append(diff, "+ "+thing)
		}
	}
	for _, thing := range slices.Sorted(maps.Keys(earlier)) {
		if !s[thing] {
			diff = append(diff, "- "+thing)
		}
	}
	return diff
}

// NothingLeft returns nil as soon as the bed looks as in the earlier snapshot; when ctx ends first, the error lists the
// differences. Lines that expected says yes to do not count; nil expects none.
func (b *Bed) NothingLeft(ctx context.Context, earlier Snapshot, expected func(line string) bool) error {
	var diff []string
	for {
		now, err := b.Snapshot(ctx)
		if err == nil {
			diff = now.Diff(earlier)
			if expected != nil {
				diff = slices.DeleteFunc(diff, expected)
			}
			if len(diff) == 0 {
				return nil
			}
		}
		if pause(ctx) != nil {
			return errs.New(errs.Failed, "bed %s is not as it was: %d differences:\n%s", b.ID, len(diff), strings.Join(diff, "\n"))
		}
	}
}

func (h *Host) seeProcesses(_ context.Context, see func(string, ...any)) error {
	for _, pid := range h.pids() {
		inside := pidInside(pid)
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || inside == 0 {
			continue // it has just ended
		}
		name := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		if name == "" {
			name = "(ended, not reaped)"
		}
		descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			continue
		}
		see("process %d %s", inside, name)
		see("process %d has %d descriptors", inside, len(descriptors))
	}
	return nil
}

// pids are the machine's pids of the host's processes, in whatever pid namespace below the host's and whatever cgroup.
func (h *Host) pids() []int {
	of := func(pid int) string {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		return link
	}
	host := of(h.Pid())
	var in []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != h.Pid() && (of(pid) == host || h.holds(pid)) {
			in = append(in, pid)
		}
	}
	return in
}

// holds says whether the process is in the host's cgroup, which includes those in pid namespaces of their own.
func (h *Host) holds(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return strings.Contains(path+"/", "/"+h.bed.ID+"/"+h.Name+"/")
		}
	}
	return false
}

func (h *Host) seeCgroups(_ context.Context, see func(string, ...any)) error {
	for _, g := range h.cgroup.below() {
		see("cgroup %s", strings.TrimPrefix(string(g), string(h.cgroup))+"/")
	}
	return nil
}

func (h *Host) seeMounts(_ context.Context, see func(string, ...any)) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.Pid()))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		at, fstype := strings.Fields(before), strings.Fields(after)
		if len(at) > 4 && len(fstype) > 0 {
			see("mount %s on %s", fstype[0], at[4])
		}
	}
	return nil
}

// seeNetwork looks into every network namespace that a process of the host is in. One that only a mount keeps is seen as a mount.
func (h *Host) seeNetwork(_ context.Context, see func(string, ...any)) error {
	seen := map[string]bool{}
	for _, pid := range append([]int{h.Pid()}, h.pids()...) {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil || seen[name] {
			continue
		}
		seen[name] = true
		of := ""
		if pid != h.Pid() {
			of = " in " + name
			see("network namespace %s", name)
		}
		if err := seeNetns(pid, func(format string, args ...any) { see("%s%s", fmt.Sprintf(format, args...), of) }); err != nil {
			return err
		}
	}
	return nil
}

func seeNetns(pid int, see func(string, ...any)) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil // it has just ended
	}
	defer ns.Close()
	nl, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer nl.Close()
	links, err := nl.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		name := l.Attrs().Name
		see("link %s %s", name, l.Type())
		addrs, err := nl.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			see("address %s on %s", a.IPNet, name)
		}
		routes, err := nl.RouteList(l, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, r := range routes {
			see("route to %s by %s on %s", r.Dst, r.Gw, name)
		}
	}
	return nil
}

func (h *Host) seeRules(ctx context.Context, see func(string, ...any)) error {
	rules, err := h.Run(ctx, "nft", "--stateless", "list", "ruleset")
	if err != nil {
		return err
	}
	table := ""
	for line := range strings.Lines(rules) {
		if strings.HasPrefix(line, "table ") {
			table = strings.TrimSuffix(strings.TrimSpace(line), " {")
		}
		see("%s: %s", table, strings.TrimSpace(line))
	}
	return nil
}

func (h *Host) seeFiles(_ context.Context, see func(string, ...any)) error {
	for _, folder := range filesWatched {
		top := h.Path(folder)
		err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				see("file %s", folder+strings.TrimPrefix(path, top))
			}
			return nil // files come and go while we look
		})
		if err != nil {
			return err
		}
	}
	return nil
}
